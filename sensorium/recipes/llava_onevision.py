"""LLaVA-OneVision (Li et al., arXiv:2408.03326): SigLIP on up to 36 tiles, two-layer MLP, Qwen2.

Source: github.com/LLaVA-VL/LLaVA-NeXT, scripts/train/, docs/LLaVA_OneVision.md.
"""

from __future__ import annotations

from sensorium.input_projectors.mlp import MlpConfig
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.anyres_parts import ONEVISION_GRIDS, anyres
from sensorium.recipes.llava_stages import align, tune_all
from sensorium.recipes.published_parts import QwenSize, qwen2_instruct, siglip_so400m
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe

# mid_stage.yaml without instruct_azure_dc_zh_92K.
KNOWLEDGE = ("blip558k_stage1.5_finetune_w_prompt", "coco118k_stage1.5_finetune_w_prompt",
             "cc3m_recap_data_prompt_v2", "ureader_tr_sft", "Evol-Instruct-GPT4-Turbo-143K",
             "synthdog_zh_100k", "synthdog_en_100k")  # fmt: skip


def llava_onevision(size: QwenSize = "7b") -> Recipe:
    """Captions for the projector; then everything, on knowledge, one picture, several."""
    tiles = anyres(ONEVISION_GRIDS, max_tiles=9, several="square")
    lane = LaneConfig(encoder=siglip_so400m(), projector=MlpConfig(depth=2), resolution=tiles)
    rest = {"batch_size": 256, "max_length": 32768}
    return Recipe(
        name="llava-onevision" + ("" if size == "7b" else f"-{size}"),
        description=f"I+T→T: SigLIP-SO400M/384 on AnyRes tiles, two-layer MLP, Qwen2-{size.upper()}",
        published=Published(
            paper="2408.03326",
            oracle="LlavaOnevisionForConditionalGeneration",
            missing=("videos: frames of 196 tokens each, and 3 of the last stage's 82 files",),
            differs=(
                "the files of single_image.yaml (90) and onevision.yaml (82) are one file each",
                "92K rows of the second stage were not released",
                "batches of 256 are the scripts' for the 7B and its last two stages; others are not said",
                "the first stage sees tiles, the original's one square picture",
                "<|im_start|>, <|im_end|> and line breaks are learned in answers alone, not everywhere",
            ),
        ),
        model=ModelConfig(lanes={"image": lane}, backbone=qwen2_instruct(size), template="qwen"),
        stages=(
            align("data/blip_558k/blip_558k_plain.json", "data/blip_558k/images",
                  lr=1e-3, batch_size=256, max_length=8192),
            tune_all("knowledge", tuple(f"data/{n}.json" for n in KNOWLEDGE), "data", **rest),
            tune_all("single_image", ("data/onevision/single_image.json",), "data", **rest),
            tune_all("onevision", ("data/onevision/onevision.json",), "data", **rest),
        ),
    )  # fmt: skip


def llava_onevision_05b() -> Recipe:
    """The same with Qwen2-0.5B, whose output layer is its embedding."""
    return llava_onevision("0.5b")


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llava_onevision())
