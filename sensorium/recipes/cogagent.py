"""CogAgent-18B (Hong et al., arXiv:2312.08914): CogVLM at 224 pixels, and a second look at 1,120 in all layers.

Source: github.com/THUDM/CogVLM, utils/models/cogagent_model.py; stages and data are the paper's, its sections on
pre-training and on multi-task fine-tuning."""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.cogvlm_parts import cogagent_model, cogvlm_stage
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

ROOT, LR = "data/cogagent", 2e-5
DETAIL, BACKBONE = "encoders.image_detail", "backbone"
TEXT = ("rendered_text", "natural_ocr", "arxiv")
PRETRAIN = mixed(dict.fromkeys((*TEXT, "laion115m_boxes", "ccs400k", "laion_coyo_captions")), "samples",
                 root=ROOT, suffix=".jsonl")  # fmt: skip
TUNE = mixed(dict.fromkeys(("screenshots_2k", "mind2web", "aitw", "vqa")), "samples", root=ROOT, suffix=".jsonl")
ALL = {"encoders.image": LR, "projectors.image": LR, "fusion": LR, DETAIL: LR, BACKBONE: LR}


def cogagent() -> Recipe:
    """The finer tower and the attention to it, then the expert too, then everything."""
    cross = _pretrain("cross", {DETAIL: LR}, 20_000)
    module = Learn(part="fusion", module="cross", lr=LR, weight_decay=0.05)
    cross = cross.model_copy(update={"learns": (*cross.learns, module)})
    tune = cogvlm_stage("tune", ALL, objective=InstructConfig(), data=TUNE, steps=10_000, batch_size=1024)
    return Recipe(
        name="cogagent", model=cogagent_model(),
        description="I(1120)+box+T→T,box,action: CogVLM/224, EVA2-CLIP-L/1120 attended to in all layers",
        published=Published(paper="2312.08914", second="parts of transformers (test_cogvlm.py)", missing=(
            "stretching EVA2-CLIP-L's positions from 336 to 1,120 pixels; `start=FOLDER` takes adapter, expert and LLM of a CogVLM",
            "writing pages and text as pictures: rows hold them already"), differs=(
            "decay, warm-up and betas are CogVLM's, shares of the sets by size: both are not published",
            "no curriculum (the original: easier reading and captions first, then pages and boxes)",
            "639.2M learn first, the paper says 646M; the finer tower has neither its last block nor CLIP's head",
            "several pictures: a token sees the finer look at the last one in front of it")),
        stages=(cross, _pretrain("expert", {DETAIL: LR, "fusion": LR}, 40_000), tune),
    )  # fmt: skip


def _pretrain(name: str, rates: dict[str, float], steps: int) -> StageConfig:
    objective = CaptionConfig(layout="cogvlm_base")
    return cogvlm_stage(name, rates, objective=objective, data=PRETRAIN, steps=steps, batch_size=4608)


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(cogagent())
