"""LISA (Lai et al., arXiv:2308.00692): LLaVA at 224 pixels, whose token `[SEG]` is the prompt of SAM's mask decoder.

Sources: github.com/dvlab-research/LISA, train_ds.py and model/LISA.py. Its LLM has LLaVA's three tokens of pictures, and one more.
"""

from __future__ import annotations

from sensorium.core.weights import HubSource
from sensorium.generators.sam import SamConfig
from sensorium.model.config import LoraConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.mask_prompt import MaskPromptConfig
from sensorium.recipes.llava_v1 import llava_v1
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.masks import MaskConfig

LR = 3e-4
WORDS = tuple(Learn(part="backbone", module=name, lr=LR) for name in ("lm.model.embed_tokens", "lm.lm_head"))
TOKENS = ("<im_patch>", "<im_start>", "<im_end>", "[SEG]")
SETS: dict[str, float | None] = {"sem_seg": 9, "refer_seg": 3, "vqa": 3, "reason_seg": 1}


def lisa() -> Recipe:
    """One stage: adapter, words, the way to the prompt and the mask decoder."""
    sam = SamConfig(decoder_norm_eps=1e-5, weights=(HubSource(id="facebook/sam-vit-huge"),))
    backbone = llama("7b", "lmsys/vicuna-7b-v1.1", vocab_size=32004).model_copy(update={"added_tokens": TOKENS})
    return Recipe(
        name="lisa",
        description="I+T→T,mask: LLaVA at 224 pixels with LoRA, [SEG] → SAM ViT-H",
        published=Published(
            paper="2308.00692", second="second writing (test_lisa.py)",
            differs=(
                "starts from Vicuna v1.1; the original from LLaVA-Lightning-7B-v1-1, released as a difference to LLaMA",
                "rows hold the question, answer and up to three classes of a picture that the original draws anew each time",
                "batch 160 is two rows on each of eight GPUs, ten times: their number is quoted from memory of the paper",
            ),
        ),
        model=llava_v1().model.model_copy(update={
            "backbone": backbone, "adapter": LoraConfig(rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj")), "template": "lisa",
            "hands": {"mask": HandConfig(signals=("[SEG]",), projector=MaskPromptConfig(), generator=sam)},
        }),
        stages=(
            StageConfig(name="masks", objective=MaskConfig(), data=mixed(SETS, "samples", root="data/lisa", suffix=".jsonl"),
                        learns=(Learn(part="adapter", lr=LR), *WORDS, Learn(part="hands.mask", lr=LR), Learn(part="objective", lr=LR)),
                        steps=5000, batch_size=160, max_length=512, betas=(0.9, 0.95), precision="bf16",
                        schedule=ScheduleConfig(shape="linear", warmup_steps=100, final_ratio=0.0)),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on synthetic scenes."""
    return shrink(lisa())
