"""CLIP ViT-L/14 (arXiv:2103.00020), and one more epoch of it at 336 pixels behind the training at 224.

Sources: the paper, section 2.5 and its tables 18 and 20; the towers' sizes from transformers' config of the released model.
"""

from __future__ import annotations

from sensorium.encoders.clip import ClipConfig
from sensorium.model.config import ModelConfig
from sensorium.recipes.clip import DIFFERS, clip
from sensorium.recipes.dual_parts import text_tower
from sensorium.training.config import Published, Recipe

WORDS = "openai/clip-vit-large-patch14-336"


def clip_l() -> Recipe:
    """The larger towers, and the first 32 epochs of their training."""
    base = clip()
    (stage,) = base.stages
    learns = tuple(learn.model_copy(update={"lr": 4e-4}) for learn in stage.learns)
    return base.model_copy(
        update={
            "name": "clip-l",
            "description": "I,T→score: ViT-L/14, causal text tower, softmax contrast",
            "model": _large(224),
            "stages": (stage.model_copy(update={"learns": learns}),),
        }
    )


def _large(size_px: int) -> ModelConfig:
    model = clip().model
    encoder = ClipConfig(image_size_px=size_px, feature="pooled")
    image = model.lanes["image"].model_copy(update={"encoder": encoder})
    text = text_tower("clip_text_model", WORDS, hidden_size=768, intermediate_size=3072,
                      num_attention_heads=12, projection_dim=768)  # fmt: skip
    return model.model_copy(update={"lanes": {"image": image}, "backbone": text})


def clip_l_336() -> Recipe:
    """The last epoch, at a larger size."""
    base = clip()
    (stage,) = base.stages
    learns = tuple(learn.model_copy(update={"lr": 2e-5}) for learn in stage.learns)
    return base.model_copy(
        update={
            "name": "clip-l-336",
            "description": "I,T→score: ViT-L/14 at 336 pixels, causal text tower, softmax contrast",
            "published": Published(
                paper="2103.00020",
                oracle="CLIPModel",
                differs=(*DIFFERS, "32 epochs at 224 pixels come first: `start=runs/clip-l`, positions stretched",
                         "the warm-up of the last epoch is unknown; it is that of the first 32"),
            ),
            "model": _large(336),
            "stages": (stage.model_copy(update={"learns": learns, "epochs": 1.0}),),
        }
    )
