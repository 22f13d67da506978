"""How published LLMs lay out pictures as tokens and draw them: arguments of a `PictureWordsConfig`, without tokenizer and words."""

from __future__ import annotations

from typing import Any

from sensorium.core.hands import Drawing
from sensorium.media.native import NativeResolution
from sensorium.media.resolution import FixedResolution

NEGATIVE = ("lowres, bad anatomy, bad hands, text, error, missing fingers, extra digit, fewer digits, cropped, worst quality, low "
            "quality, normal quality, jpeg artifacts, signature, watermark, username, blurry.")  # fmt: skip
# github.com/baaivision/Emu3, emu3/mllm/processing_emu3.py and image_generation.py.
EMU3: dict[str, Any] = {
    "begin": ("<|image start|>", "{h}*{w}", "<|image token|>"),
    "row_end": "<|extra_200|>",
    "end": ("<|extra_201|>", "<|image end|>"),
    "resolution": NativeResolution(patch_px=8, merge=1, min_pixels=512**2, max_pixels=1024**2),
    "template": "emu3_gen",
    "drawing": Drawing(guidance=3.0, negative=NEGATIVE, top_k=2048),
}
# github.com/facebookresearch/chameleon, chameleon/inference/vocab.py, image_tokenizer.py and chameleon.py.
CHAMELEON: dict[str, Any] = {
    "begin": ("<racm3:break>",),
    "end": ("<eoss>",),
    "resolution": FixedResolution(fit="crop"),
    "interpolation": "lanczos",
    "drawing": Drawing(guidance=3.0, picture_guidance=1.2, away="pictures", temperature=0.7, top_p=0.9),
}
# github.com/deepseek-ai/Janus, janus/models/processing_vlm.py and generation_inference.py.
JANUS: dict[str, Any] = {
    "begin": ("<begin_of_image>",),
    "end": ("<end_of_image>",),
    "resolution": FixedResolution(fit="crop"),
    "template": "janus_draw",
    "drawing": Drawing(guidance=5.0, away="pads"),
}
