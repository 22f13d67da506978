"""The stages of Janus (arXiv:2410.13848) and Janus-Pro (arXiv:2501.17811): adaptors and the head of pictures, all but encoders,
then all but the picture tokenizer. Numbers are those of the papers' tables, quoted from memory."""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.mixtures import mixed
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import InstructConfig

ADAPTORS = ("projectors.image", "code_tables")
Shares = tuple[float, float, float]
"""Of understanding, text alone, and drawing."""
DIFFERS = (
    "the language model starts at random, or with start=FOLDER from an imported Janus: DeepSeek-LLM-1.3B is not published by itself",
    "the picture tokenizer is that of Janus' own checkpoint (LlamaGen's)",
    "rates, steps, batches and shares are quoted from memory of the paper's table",
    "shares are of rows; what is learned of a row that is drawn is the picture with its markers and the end of text",
    "pictures to be read are padded with white (the original: RGB 127)",
    "one description of ten is left out for guidance, which is quoted from memory; what stands for it is what drawing is led away from",
    "the picture tokenizer compares vectors as transformers does; the authors' code brings them to length one first",
)


def janus_stage(name: str, parts: tuple[str, ...], rate: float, shares: Shares, *, steps: int, batch: int, warmup: int) -> StageConfig:
    """Constant rates behind a warm-up."""
    sets = {kind: share for kind, share in zip(("understand", "text", "draw"), shares, strict=True) if share}
    return StageConfig(
        name=name, objective=InstructConfig(unsteered=0.1), data=mixed(dict(sets), "samples", root=f"data/janus/{name}", suffix=".jsonl"),
        learns=tuple(Learn(part=part, lr=rate) for part in parts), steps=steps, batch_size=batch, max_length=4096, pack=True,
        betas=(0.9, 0.95), precision="bf16", schedule=ScheduleConfig(shape="constant", warmup_steps=warmup),
    )  # fmt: skip
