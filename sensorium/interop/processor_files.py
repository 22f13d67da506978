"""What lies beside the weights of a model that was trained here, so that others' programs can feed it: a token for
pictures, the image processor's values, the processor's, and the chat template.

transformers' AutoProcessor reads them, and so do servers that build on it (vLLM, SGLang). A checkpoint that was
imported keeps its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sensorium.core.parts import EncoderConfig
from sensorium.media.native import NativeResolution
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.text.chat import choose_template
from sensorium.text.jinja import CONTENT, as_jinja
from sensorium.text.tokenizer import Tokenizer

CUT = ("crop", "middle")
TOKENS = {"image_token_index": "<image>", "image_token_id": "<|image_pad|>"}
"""What a config calls the image token, and what the processors of its families call it."""
JANUS = "<image_placeholder>"
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
"""Pillow's numbers."""
EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight", "shared.weight")
ROWS = 64
"""An embedding grows by multiples of it, as matrices are multiplied fastest so."""


def with_image_token(theirs: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[dict[str, Any], str | None]:
    """A foreign config whose image token is one of the vocabulary's own, and the token.

    A vocabulary without one gets it, behind its last word; where the embedding has no row left for it,
    `text_config.vocab_size` is raised. Families that name no image token are left as they are.
    """
    key = next((key for key in TOKENS if key in theirs), None)
    if key is None:
        return dict(theirs), None
    token = JANUS if theirs["model_type"] == "janus" else TOKENS[key]
    tokenizer.add([token])
    text = dict(theirs["text_config"])
    if len(tokenizer) > text["vocab_size"]:
        text["vocab_size"] = -(-len(tokenizer) // ROWS) * ROWS
    return {**theirs, key: tokenizer.special_id(token), "text_config": text}, token


def grown(tensors: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Embeddings and output layers with that many rows. New ones are the mean of the others, whose score is the
    mean of all scores: no text ever gets one of these words for its likeliest."""
    out = dict(tensors)
    for name, table in tensors.items():
        if name.endswith(EMBEDDINGS) and len(table) < rows:
            mean = table.float().mean(0, keepdim=True).to(table.dtype)
            out[name] = torch.cat([table, mean.expand(rows - len(table), -1)]).contiguous()
    return out


def processor_files(
    theirs: Mapping[str, Any], config: ModelConfig, token: str | None, tokenizer: Tokenizer
) -> dict[str, dict[str, Any] | str]:
    """Files by name: JSON as dicts, text as it is. Empty for families of which no processor is known here.

    Args:
        theirs: the foreign config.json.
        token: the image token; None where the config names none (IDEFICS, whose pictures are attended to).
    """
    lane, family = config.lanes.get("image"), theirs["model_type"]
    if lane is None or family not in PROCESSORS:
        return {}
    image_class, processor_class = PROCESSORS[family]
    pixels = {"image_processor_type": image_class, "processor_class": processor_class, **_pixels(lane, theirs)}
    own = {"processor_class": processor_class, **_own(lane, theirs, token)}
    files: dict[str, dict[str, Any] | str]
    files = {"preprocessor_config.json": pixels, "processor_config.json": own}
    if family == "blip-2" and token is None:
        # Left unsaid, it would be taken for that of BLIP-2's language model, OPT's.
        files["tokenizer_config.json"] = {**tokenizer.named(), "tokenizer_class": "PreTrainedTokenizerFast"}
        return files
    chat = choose_template(config.template, tokenizer)
    jinja = as_jinja(chat)
    if token is not None and jinja is not None and "{n}" not in chat.media_before:
        files["chat_template.jinja"] = jinja.replace(CONTENT, _content(chat.media_before + token + chat.media_after))
    return files


PROCESSORS = {
    "llava": ("LlavaImageProcessor", "LlavaProcessor"),
    "llava_next": ("LlavaNextImageProcessor", "LlavaNextProcessor"),
    "llava_onevision": ("LlavaOnevisionImageProcessor", "LlavaOnevisionProcessor"),
    "qwen2_vl": ("Qwen2VLImageProcessor", "Qwen2VLProcessor"),
    "qwen2_5_vl": ("Qwen2VLImageProcessor", "Qwen2_5_VLProcessor"),
    "blip-2": ("BlipImageProcessor", "Blip2Processor"),
    "idefics": ("IdeficsImageProcessor", "IdeficsProcessor"),
}
"""transformers' classes, image processor and processor."""


def _pixels(lane: LaneConfig, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a picture into the tower's input."""
    seen = lane.encoder.preprocess()
    side = {"height": seen.size_px, "width": seen.size_px}
    values: dict[str, Any] = {
        "do_convert_rgb": True, "do_resize": True, "do_rescale": True, "do_normalize": True,
        "rescale_factor": 1 / 255, "image_mean": list(seen.mean), "image_std": list(seen.std),
        "resample": RESAMPLE[seen.interpolation],
    }  # fmt: skip
    if isinstance(lane.resolution, NativeResolution):
        vision, native = theirs["vision_config"], lane.resolution
        return values | {
            "min_pixels": native.min_pixels, "max_pixels": native.max_pixels,
            "patch_size": native.patch_px, "merge_size": native.merge,
            "temporal_patch_size": vision["temporal_patch_size"],
        }  # fmt: skip
    if "image_grid_pinpoints" in theirs:
        values["image_grid_pinpoints"] = theirs["image_grid_pinpoints"]
    if theirs["model_type"] == "idefics":
        return values | {"size": side, "image_size": seen.size_px, "image_num_channels": 3}
    if theirs["model_type"] == "llava_next":
        return values | {"size": {"shortest_edge": seen.size_px}, "crop_size": side, "do_center_crop": True}
    if not isinstance(lane.resolution, FixedResolution) or theirs["model_type"] != "llava":
        return values | {"size": side}
    # Its padding has the mean's colour, ours is white: the picture is whole in both.
    fit = lane.resolution.fit
    short = {"shortest_edge": seen.size_px}
    return values | {"size": short if fit in CUT else side, "crop_size": side,
                     "do_center_crop": fit in CUT, "do_pad": fit == "letterbox"}  # fmt: skip


def _own(lane: LaneConfig, theirs: Mapping[str, Any], token: str | None) -> dict[str, Any]:
    """What the processor itself counts tokens by."""
    family = theirs["model_type"]
    if family == "blip-2":
        # Without a token for pictures it is to put none before the text.
        return {"num_query_tokens": theirs["num_query_tokens"] if token else None}
    if token is None:
        return {"image_size": lane.encoder.preprocess().size_px}
    if isinstance(lane.resolution, NativeResolution):
        return {"image_token": token}
    strategy = {"image_token": token, "vision_feature_select_strategy": theirs["vision_feature_select_strategy"]}
    if family == "llava_onevision":
        return {**strategy, "num_image_tokens": theirs["image_seq_length"],
                "vision_aspect_ratio": theirs["vision_aspect_ratio"]}  # fmt: skip
    return {**strategy, "patch_size": theirs["vision_config"]["patch_size"],
            "num_additional_image_tokens": _class_tokens(lane.encoder, strategy)}  # fmt: skip


def _class_tokens(encoder: EncoderConfig, strategy: Mapping[str, Any]) -> int:
    """Tokens of the tower beside its patches; of the `default` strategy its processor takes one off again."""
    return 1 if strategy["vision_feature_select_strategy"] == "default" else encoder.grid().prefix


def _content(mark: str) -> str:
    """A message: a string, or a list of parts."""
    said = mark.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return ("{% if message['content'] is string %}" + CONTENT + "{% else %}{% for part in message['content'] %}"
            "{% if part['type'] == 'image' %}{{ '" + said + "' }}{% else %}{{ part['text'] }}{% endif %}"
            "{% endfor %}{% endif %}")  # fmt: skip
