"""Emu (Sun et al., arXiv:2307.05222): EVA-CLIP-g, a Causal Former, LLaMA-13B that foretells words and embeddings of pictures.

Source: github.com/baaivision/Emu, Emu1/models/Emu-14B.json, modeling_emu.py and modeling_llama.py for the graph, inference.py for the
adapter; the repository has no training file.
"""

from __future__ import annotations

from sensorium.model.config import LoraConfig
from sensorium.model.learning import Learn
from sensorium.recipes.emu_parts import FROM_MEMORY, UNKNOWN_LOSS, both_ways, draws, emu_model
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import InstructConfig
from sensorium.training.objectives.regress import RegressConfig

TUNED = LoraConfig(rank=16, alpha=16.0, dropout=0.05, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
# Conversations without pictures, about them, and about videos.
CHATS = ("sharegpt", "alpaca", "llava_instruct", "videochat", "video_chatgpt")
# Pictures between texts, and frames of videos between subtitles.
DOCUMENTS: dict[str, float | None] = {"mmc4": None, "yt_storyboard_1b": None}
RATES = {"encoders.image": 4e-5, "projectors.image": 1e-4, "backbone": 3e-5, "hands.image": 3e-5}


def emu() -> Recipe:
    """All learns to foretell the next word or embedding; the UNet to draw what is foretold; an adapter to follow instructions."""
    return Recipe(
        name="emu",
        description="I+T→T+I: EVA-CLIP-g/224, Causal Former, LLaMA-13B with a regression head, SD 1.5's UNet",
        published=Published(
            paper="2307.05222", second="second writing (test_emu.py)",
            differs=(FROM_MEMORY, *UNKNOWN_LOSS, "a system message that tells of a picture is left to the rows of the instructions",
                     "the decoder's rate does not fall once more, to a tenth, for its last thousand steps"),
        ),
        model=emu_model(adapter=TUNED),
        stages=(
            StageConfig(
                name="pretrain", objective=RegressConfig(layout="emu_document"),
                data=(*both_ways("laion_2b", "laion_coco", "webvid_10m"), *mixed(DOCUMENTS, "samples", suffix=".jsonl")),
                learns=tuple(Learn(part=part, lr=lr, weight_decay=0.05) for part, lr in RATES.items()),
                steps=10_000, batch_size=128, max_length=1024, betas=(0.9, 0.98), precision="bf16",
                schedule=ScheduleConfig(warmup_steps=2000, final_ratio=0.0),
            ),
            draws("foretold", 15_000, 1600, 1024, ScheduleConfig(shape="stairs", warmup_steps=5000, every=5000, final_ratio=0.5)),
            StageConfig(
                name="instruct", objective=InstructConfig(), data=mixed(dict.fromkeys(CHATS), "samples", suffix=".jsonl"),
                learns=(Learn(part="adapter", lr=1e-5),),
                steps=10_000, batch_size=128, max_length=1024, betas=(0.9, 0.98), precision="bf16",
                schedule=ScheduleConfig(warmup_steps=500, final_ratio=0.0),
            ),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(emu())
