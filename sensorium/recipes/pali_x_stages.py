"""The data of PaLI-X (arXiv:2305.18565, section 3.2) and what its stages share."""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.mixtures import mixed
from sensorium.training.config import StageConfig
from sensorium.training.objectives.next_token import CaptionConfig

FIRST = ("span_corruption", "split_captioning", "captioning_35_languages", "split_ocr", "vqa_and_vqg",
         "object_aware_vqa", "episodic_captioning_and_vqa", "pix2struct", "video_captioning", "owl_vit_detection",
         "image_tokens")  # fmt: skip
FINE = ("split_ocr", "pix2struct", "owl_vit_detection")
MISSING = (
    "the tower's own training: classes of JFT, then words that OCR finds",
    "several pictures or frames as one input's examples (episodic captions, videos of 4 frames)",
    "span corruption and split captions made on the fly; the files hold the halves already",
)
DIFFERS = (
    "unknown: learning rates, batches and steps; BLIP-2's rate stands in, and one pass over the data",
    "unknown: the encoder-decoder's width; UL2-20B's with 50 layers and mT5's vocabulary gives its 32B",
    "the output layer is the embedding, as transformers' T5 has it since its version 5: 31B here",
    "unknown: whether the tower learns behind the first stage; here it never does",
    "shares of the tasks are by their rows; the paper does not give them",
)


def pali_x_stage(name: str, tasks: tuple[str, ...], size_px: int) -> StageConfig:
    """A stage with pictures of so many pixels a side; the tower is frozen."""
    return StageConfig(
        name=name,
        objective=CaptionConfig(layout="seq2seq"),
        data=mixed(dict.fromkeys(tasks), "samples", root="data/pali_x", suffix=".jsonl"),
        learns=tuple(Learn(part=part, lr=1e-4) for part in ("projectors.image", "backbone")),
        epochs=1,
        batch_size=1024,
        max_length=4096,
        picture_px=size_px,
        precision="bf16",
    )
