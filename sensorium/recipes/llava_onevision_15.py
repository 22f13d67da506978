"""LLaVA-OneVision-1.5 (An et al., arXiv:2509.23661): RICE-ViT-L for any size, 2x2 merger, Qwen3.

Source: github.com/EvolvingLMMs-Lab/LLaVA-OneVision-1.5: examples/llava_ov_1_5/quick_start, ds/.
"""

from __future__ import annotations

from sensorium.encoders.rice_vit import RiceVitConfig
from sensorium.input_projectors.patch_merger import PatchMergerConfig
from sensorium.media.native import NativeResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.onevision_15_parts import BACKBONE, IMAGE, PROJECTOR, Qwen3Size, qwen3, stage
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe

MISSING = ("videos", "starting from RICE-ViT in its own layout",
           "an output layer of its own for Qwen3-4B, whose file has none")  # fmt: skip
DIFFERS = ("steps, batches and the 3M and 780K rows are the 4B's quick start's; the paper trains on 85M and more",
           "which Qwen3 of 8.2B parameters is not said: the one after its own post-training here",
           "features of second and later pictures are their own; ds/llavaonevision1_5 shifts them by a patch",
           "the tower's class token and its place learn; in the original's trainer they are fixed",
           "the last stage's pictures are not made smaller first (--image-resolution 1000)")  # fmt: skip


def llava_onevision_15(size: Qwen3Size = "4b") -> Recipe:
    """The merger learns on captions, then everything: knowledge, instructions."""
    lane = LaneConfig(encoder=RiceVitConfig(), projector=PatchMergerConfig(norm_eps=1e-5),
                      resolution=NativeResolution(max_pixels=1600 * 1600))  # fmt: skip
    return Recipe(
        name="llava-onevision-1.5" + ("" if size == "4b" else f"-{size}"),
        description=f"I+T→T: RICE-ViT-L for any size, 2x2 merger, Qwen3-{size.upper()}",
        published=Published(paper="2509.23661", second="parts of transformers (test_onevision_15.py)", missing=MISSING, differs=DIFFERS),
        model=ModelConfig(lanes={"image": lane}, backbone=qwen3(size), template="qwen2_vl"),
        stages=(stage("align", "LLaVA-558K-Webdataset", (PROJECTOR,), lr=1e-4, batch_size=8, steps=2500),
                stage("knowledge", "LLaVA-OneVision-1.5-Mid-Training-Quick-Start-3M-Webdataset",
                      (IMAGE, PROJECTOR, BACKBONE), batch_size=16, steps=20_000, betas=(0.9, 0.95), decay=0.01),
                stage("instruct", "LLaVA-NeXT-780k-webdataset", (IMAGE, PROJECTOR, BACKBONE),
                      batch_size=224, steps=3500, pack=False)),
    )  # fmt: skip


def llava_onevision_15_8b() -> Recipe:
    """The same with the larger Qwen3."""
    return llava_onevision_15("8b")


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llava_onevision_15())
