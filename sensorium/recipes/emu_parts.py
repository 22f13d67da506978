"""What Emu (arXiv:2307.05222) and Emu2 (arXiv:2312.13286) share, at their published sizes.

Source: github.com/baaivision/Emu, Emu1/models/Emu-14B.json and llama_config/, Emu2/emu/conf/.
"""

from __future__ import annotations

from typing import Any, Literal

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.video import VideoConfig
from sensorium.core.weights import HubSource
from sensorium.data.both_ways import BothWaysSource
from sensorium.data.config import FileSource
from sensorium.encoders.blip2_vit import Blip2VitConfig
from sensorium.encoders.eva2 import Eva2Config
from sensorium.generators.sdxl import SdxlConfig
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.input_projectors.avg_pool import AvgPoolConfig
from sensorium.input_projectors.cformer import CFormerConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.regression import RegressionConfig
from sensorium.recipes.published_parts import llama
from sensorium.training.config import ScheduleConfig, StageConfig
from sensorium.training.objectives.redraw import RedrawConfig

FROM_MEMORY = "names of sets, rates, batches, steps, decay and warm-up are quoted from memory of the paper"
UNKNOWN_LOSS = (
    "the paper's l2 loss is in no published code; here it is the length of the difference, and an embedding weighs as much as a word",
    "the token that begins a picture is learned, so that the model decides to draw (the original: its loss is masked, and who asks for a "
    "picture writes the token)",
    "the state behind a picture's last embedding is not drawn to the token that ends it",
    "a condition that the decoder is to do without is zeros; what the published pipelines lead away from is what the LLM writes behind no text",
)
UNKNOWN_DECAY = "how weights decay is not published: by 0.05"
UNKNOWN_EMU2 = (UNKNOWN_DECAY, *UNKNOWN_LOSS)
CONCISE = "You are a helpful assistant, dedicated to provide concise and efficient answers."
SD_15, SDXL = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
MARKS = ("[IMG]", "[/IMG]")
PICTURE = (*MARKS, "<image>")
CHAT = ("[USER]", "[ASSISTANT]")
REST = ("[gIMG]", "[/gIMG]", "[EOC]", "[VIDEO]")
# A phrase, what it names, where; then 257 places.
PLACES = ("<grounding>", "<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>", "<REC>",
          *(f"<patch_index_{i:04d}>" for i in range(257)))  # fmt: skip


def with_tokens(backbone: CausalLMConfig, *tokens: str) -> CausalLMConfig:
    """A language model with control tokens behind its vocabulary."""
    arch = backbone.arch | {"vocab_size": backbone.vocab_size + len(tokens)}
    return backbone.model_copy(update={"arch": arch, "added_tokens": tokens})


def emu_model(**changes: Any) -> ModelConfig:
    """Of the tower 40 blocks and the norm behind; what is foretold lies in the LLM's space."""
    lane = LaneConfig(encoder=Blip2VitConfig(layers=40), projector=CFormerConfig(), resolution=FixedResolution(fit="stretch"))
    decoder = StableDiffusionConfig(length=32, width=5120, reads_text=False, weights=(HubSource(id=SD_15, format="emu_decoder"),))
    return ModelConfig(
        lanes={"image": lane},
        backbone=with_tokens(llama("13b", "huggyllama/llama-13b"), "[PAD]", *PICTURE, *CHAT),
        hands={"image": HandConfig(signals=MARKS, projector=RegressionConfig(), generator=decoder)},
        template="emu",
        placeholder_token="<image>",
        video=VideoConfig(frames=8),
        **changes,
    )


def emu2_model(*, chats: bool = False) -> ModelConfig:
    """The whole tower without a norm behind; what is foretold are its pooled features. Emu2-Chat reads four times as many of a picture."""
    side, roles = (16, CHAT) if chats else (8, ())
    lane = LaneConfig(
        encoder=Eva2Config(layers=64, image_size_px=448, key_bias=False),
        projector=AvgPoolConfig(side=side, bias=False),
        resolution=FixedResolution(fit="stretch"),
    )
    # Behind so many embeddings no decoder was trained.
    begins = () if chats else (HubSource(id=SDXL, format="emu2_decoder"),)
    decoder = SdxlConfig(length=side * side, width=1792, pooled="mean", weights=begins)
    shape = {"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60, "num_attention_heads": 52,
             "num_key_value_heads": 52}  # fmt: skip
    return ModelConfig(
        lanes={"image": lane},
        backbone=with_tokens(llama("13b", "huggyllama/llama-30b", **shape), "[PAD]", *PICTURE, *REST, *PLACES, *roles),
        hands={"image": HandConfig(signals=MARKS, projector=RegressionConfig(space="encoder"), generator=decoder)},
        template="emu2" if chats else "emu2_document",
        boxes="emu2",
        placeholder_token="<image>",
        video=VideoConfig(frames=8, begin=("[VIDEO]",), pool=2 if chats else 1),
    )


def draws(steered_by: Literal["seen", "foretold"], steps: int, batch_size: int, max_length: int, schedule: ScheduleConfig) -> StageConfig:
    """Nothing but the decoder's UNet learns, from pictures behind their texts."""
    return StageConfig(
        name="draw", objective=RedrawConfig(layout="emu_document", steered_by=steered_by),
        data=both_ways("laion_coco", "laion_aesthetics", last=1.0), learns=(Learn(part="objective", lr=1e-4, weight_decay=0.01),),
        steps=steps, batch_size=batch_size, max_length=max_length, betas=(0.9, 0.999), precision="bf16", schedule=schedule,
    )  # fmt: skip


def pairs(*names: str) -> tuple[FileSource, ...]:
    """Sets of pictures and their texts."""
    return tuple(FileSource(path=f"data/{name}", format="webdataset") for name in names)


def both_ways(*names: str, last: float = 0.5) -> tuple[BothWaysSource, ...]:
    """The same as documents, the medium last in such a share, else first."""
    return tuple(BothWaysSource(source=source, last=last) for source in pairs(*names))
