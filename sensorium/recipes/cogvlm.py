"""CogVLM-17B (Wang et al., arXiv:2311.03079): a picture's tokens have their own weights in all layers.

Sources: github.com/THUDM/CogVLM; the paper, sections 2.2 and 2.3, its tables 5 and 6 for the stages."""

from __future__ import annotations

from sensorium.recipes.cogvlm_parts import EXPERT, PROJECTOR, TOWER, cogvlm_model, cogvlm_stage
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

WEB = mixed({"laion2b": 2.0, "coyo700m": 0.7}, "webdataset", root="data/cogvlm")
# Questions for places, in the words of the paper (`Question: ... Answer:`), which the rows hold.
GROUNDED = (*WEB, *mixed({"laion40m_boxes": None}, "samples", root="data/cogvlm", suffix=".jsonl"))
TALK = mixed(dict.fromkeys(("vqa_v2", "ok_vqa", "text_vqa", "ocr_vqa", "science_qa", "llava_instruct", "lrv_instruction",
                            "llavar")), "samples", root="data/cogvlm", suffix=".jsonl")  # fmt: skip
BEHIND = CaptionConfig(layout="cogvlm_base")
PUBLISHED = Published(
    paper="2311.03079", second="parts of transformers (test_cogvlm.py)",
    differs=(
        "the two sizes are two recipes: `cogvlm start=runs/cogvlm-224` goes on at 490 pixels, positions stretched",
        "shares of the sets are not published; files are named here, not there",
        "no dropout (the original: 0.1)",
        "an end of text behind every answer, not only behind the last",
    ),
)


def cogvlm_224() -> Recipe:
    """Captions of 1.5B pictures, then places too, at 224 pixels; adapter and expert learn."""
    first, second = dict.fromkeys((PROJECTOR, EXPERT), 1e-4), dict.fromkeys((PROJECTOR, EXPERT), 1e-5)
    return Recipe(
        name="cogvlm-224",
        description="I+T→T,box: EVA2-CLIP-E/224, visual expert in all layers of Vicuna-7B",
        published=PUBLISHED,
        model=cogvlm_model(224),
        stages=(cogvlm_stage("caption", first, 12_000, objective=BEHIND, data=WEB, steps=120_000, batch_size=8192),
                cogvlm_stage("ground", second, 1200, objective=BEHIND, data=GROUNDED, steps=30_000, batch_size=1024)),
    )  # fmt: skip


def cogvlm() -> Recipe:
    """The second half of the second stage, at 490 pixels, then conversations; there the tower learns."""
    both, talk = dict.fromkeys((PROJECTOR, EXPERT), 1e-5), {PROJECTOR: 1e-5, EXPERT: 1e-5, TOWER: 1e-6}
    stages = (cogvlm_stage("ground", both, objective=BEHIND, data=GROUNDED, steps=30_000, batch_size=1024),
              cogvlm_stage("instruct", talk, objective=InstructConfig(), data=TALK, steps=6000, batch_size=1024, decay=0.1))  # fmt: skip
    words = "I+T→T,box: EVA2-CLIP-E/490, visual expert in all layers of Vicuna-7B"
    changes = {"name": "cogvlm", "description": words, "stages": stages, "model": cogvlm_model(490)}
    return cogvlm_224().model_copy(update=changes)


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(cogvlm())
