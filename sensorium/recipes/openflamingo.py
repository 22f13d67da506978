"""OpenFlamingo (Awadalla et al., arXiv:2308.01390): web pages with their pictures, and captions.

Rows of both are documents: an answer of text and pictures. Sources: `openflamingo_parts`; its script
open_flamingo/scripts/run_train.sh is that of the 3B model.
"""

from __future__ import annotations

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.model.learning import Learn
from sensorium.recipes import openflamingo_parts as parts
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig

LR = 1e-4
DIFFERS = (
    "a batch is what one GPU sees in the script; the number of GPUs is not in it, and steps follow from 60M pages",
    "both sets share a batch; weighted losses are averaged over the tokens of both, not set by set",
    "no end of text behind the last chunk", "norms and gates do not decay",
)  # fmt: skip


def openflamingo_3b() -> Recipe:
    """Blocks in front of every layer of MPT-1B."""
    return variant("3b", "every layer of MPT-1B", parts.mpt_1b(), 1, "lm.transformer.wte")


def openflamingo_4b() -> Recipe:
    """Blocks in front of every second layer of RedPajama-3B."""
    return variant("4b", "every 2nd layer of RedPajama-3B", parts.redpajama_3b(), 2, "lm.gpt_neox.embed_in")


def openflamingo_9b() -> Recipe:
    """Blocks in front of every fourth layer of MPT-7B."""
    return variant("9b", "every 4th layer of MPT-7B", parts.mpt_7b(), 4, "lm.transformer.wte")


def variant(size: str, where: str, backbone: CausalLMConfig, every: int, embedding: str) -> Recipe:
    """Resampler, blocks and two words learn."""
    learns = (Learn(part="projectors.image", lr=LR), Learn(part="fusion", lr=LR, weight_decay=0.1),
              Learn(part="backbone", module=embedding, rows=parts.NEW_ROWS, lr=LR))  # fmt: skip
    pretrain = StageConfig(
        name="pretrain", objective=CaptionConfig(layout="openflamingo"), learns=learns,
        data=mixed({"mmc4": 1 / 3, "laion_2b": 2 / 3}, "samples", suffix=".jsonl", losses={"laion_2b": 0.2}), steps=1_875_000, batch_size=96,
        max_length=256, betas=(0.9, 0.999), schedule=ScheduleConfig(shape="constant", warmup_steps=1875), precision="bf16",
    )  # fmt: skip
    return Recipe(
        name=f"openflamingo-{size}", model=parts.openflamingo_model(backbone, every=every), stages=(pretrain,),
        description=f"I+T→T, interleaved: CLIP-L/224, resampler of 64, cross-attention in {where}",
        published=Published(paper="2308.01390", recorded="open_flamingo", differs=DIFFERS),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(openflamingo_3b())
