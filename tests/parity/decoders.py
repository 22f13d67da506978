"""The decoders of the matrix: how the reference makes a tiny one, and what it is given with a prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hf_models
import native_models
import torch
from anyres_cases import Prompt, picture

from sensorium.core.batch import Example
from sensorium.interop.hf import read_hf
from sensorium.model.config import AdaptionPromptConfig
from sensorium.model.multimodal import MultimodalModel

VOCAB = 300
SQUARE = {"height": 28, "width": 28}
PROMPTS: dict[str, Prompt] = {
    "start": [(100, 30), "what is it?"],
    "middle": ["see ", (33, 170), " and tell"],
    "end": ["name it: ", (30, 100)],
    "two": ["a ", (28, 28), " or ", (57, 55)],
    "three": [(157, 55), "a ", (200, 3), "-", (40, 40), "?"],
    "side by side": [(3, 200), (40, 40)],
    "blind": ["no picture at all"],
}


def llava_eyes() -> Any:
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    return LlavaImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE)


def blip_eyes() -> Any:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    return BlipImageProcessorPil(size=SQUARE)


def next_eyes() -> Any:
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    return LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size=SQUARE, image_grid_pinpoints=hf_models.NEXT_PINPOINTS
    )


def onevision_eyes() -> Any:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    return LlavaOnevisionImageProcessorPil(
        size=SQUARE, image_grid_pinpoints=hf_models.ONEVISION_PINPOINTS, image_mean=[0.6, 0.5, 0.4]
    )


def idefics_eyes() -> Any:
    from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

    return IdeficsImageProcessorPil(image_size=28)


def kosmos_eyes() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size=SQUARE, do_center_crop=False)


def qwen_eyes() -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil()


def pictures(prompt: Prompt) -> list[Any]:
    return [picture(part) for part in prompt if not isinstance(part, str)]


def spliced(theirs: Any, prompt: Prompt, example: Example, eyes: Any) -> dict[str, Any]:
    """Ids with the reference's own image token where features go."""
    ids_1T = torch.tensor([example.input_ids])
    ids_1T[0, example.slots.get("image", [])] = theirs.config.image_token_id
    seen = eyes(pictures(prompt), return_tensors="pt") if example.media else {}
    return {"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T), **seen}


def together(theirs: Any, prompt: Prompt, example: Example, eyes: Any) -> dict[str, Any]:
    """OneVision prepares the pictures of a conversation otherwise than single ones: a list in a list."""
    return spliced(theirs, prompt, example, lambda found, **more: eyes([found], **more))


def read_by(example: Example) -> dict[str, Any]:
    """What InstructBLIP's Q-Former reads: one text a picture, padded on the right."""
    texts = example.media["image"].texts
    longest = max(map(len, texts))
    return {
        "qformer_input_ids": torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts]),
        "qformer_attention_mask": torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in texts]),
    }


def questioned(theirs: Any, prompt: Prompt, example: Example, eyes: Any) -> dict[str, Any]:
    return spliced(theirs, prompt, example, eyes) | read_by(example)


def attended(theirs: Any, prompt: Prompt, example: Example, eyes: Any) -> dict[str, Any]:
    """IDEFICS: which token sees which picture."""
    ids_1T = torch.tensor([example.input_ids])
    seen_MCHW = torch.as_tensor(eyes(pictures(prompt), return_tensors="pt"))
    index_T = torch.tensor(example.media_index)
    sees_1TM = (index_T[:, None] == torch.arange(1, len(seen_MCHW) + 1))[None].long()
    return {"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T), "pixel_values": seen_MCHW[None],
            "image_attention_mask": sees_1TM}  # fmt: skip


def masked(theirs: Any, prompt: Prompt, example: Example, eyes: Any) -> dict[str, Any]:
    """Kosmos-2: where features go is a mask; what stands there is of no account, unless it is padding."""
    ids_1T = torch.tensor([example.input_ids])
    slots_1T = torch.zeros_like(ids_1T, dtype=torch.bool)
    slots_1T[0, example.slots["image"]] = True
    return {"input_ids": ids_1T.masked_fill(slots_1T, VOCAB - 1), "attention_mask": torch.ones_like(ids_1T),
            "image_embeds_position_mask": slots_1T, **eyes(pictures(prompt), return_tensors="pt")}  # fmt: skip


def typed(theirs: Any, prompt: Prompt, example: Example, eyes: Any) -> dict[str, Any]:
    """Qwen2-VL: which tokens are a picture's."""
    given = spliced(theirs, prompt, example, eyes)
    return given | {"mm_token_type_ids": (given["input_ids"] == theirs.config.image_token_id).int()}


def prompted(folder: Path) -> Any:
    """LLaVA whose language model has peft's prompts in its last layer, their gate open."""
    from peft.tuners.adaption_prompt.layer import AdaptedAttention

    theirs = hf_models.llava(folder, vocab=VOCAB)
    last = theirs.model.language_model.layers[-1]
    last.self_attn = AdaptedAttention("llama", 5, last.self_attn)
    torch.nn.init.constant_(last.self_attn.adaption_gate, 0.7)
    return theirs.eval()


def with_prompts(theirs: Any, folder: Path) -> MultimodalModel:
    plain = read_hf(folder)
    adapter = AdaptionPromptConfig(layers=1, length=5, gate="layer")
    ours = MultimodalModel(plain.config.model_copy(update={"adapter": adapter})).eval()
    attention = theirs.model.language_model.layers[-1].self_attn
    state = plain.state_dict()
    for name in ours.state_dict().keys() - state.keys():
        state[name] = attention.adaption_prompt[0] if name.endswith("vectors") else attention.adaption_gate
    ours.load_state_dict(state)
    return ours


def alike(theirs: Any, folder: Path) -> MultimodalModel:
    return read_hf(folder)


@dataclass(frozen=True)
class Decoder:
    """`eyes` prepare pictures for the reference; `inputs(model, prompt, our Example, eyes)` is what it is given.

    `steps`: `generate` of the reference is not what its own forward pass finds likeliest, or cannot
    be asked; the whole sequence is run again for each token then. `markers` are tokens of a picture that has no
    slots. `without` are prompts that the reference cannot take.
    """

    save: Callable[[Path], Any]
    eyes: Callable[[], Any]
    inputs: Callable[[Any, Prompt, Example, Any], dict[str, Any]] = spliced
    read: Callable[[Any, Path], MultimodalModel] = alike
    family: str = ""
    steps: bool = False
    markers: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


DECODERS: dict[str, Decoder] = {
    "llava": Decoder(partial(hf_models.llava, vocab=VOCAB), llava_eyes, family="llava"),
    "llava-next": Decoder(hf_models.llava_next, next_eyes, family="llava_next"),
    "llava-onevision": Decoder(hf_models.llava_onevision, onevision_eyes, together, family="llava_onevision"),
    "blip2-opt": Decoder(partial(hf_models.blip2, vocab=VOCAB), blip_eyes, family="blip-2", without=("blind",)),
    "instructblip-vicuna": Decoder(
        partial(hf_models.instructblip, vocab=VOCAB, reader=VOCAB), blip_eyes, questioned, family="instructblip",
        # The Q-Former reads the question: there has to be one.
        without=("side by side", "blind"),
    ),
    "idefics": Decoder(
        partial(hf_models.idefics, alpha="vector", norm_heads=True, extra=2, vocab=VOCAB), idefics_eyes, attended,
        family="idefics", steps=True, markers=("<img>", "</img>"), without=("blind",),
    ),
    "kosmos-2": Decoder(partial(hf_models.kosmos2, vocab=VOCAB), kosmos_eyes, masked, family="kosmos-2", without=("blind",)),
    # The reference takes image tokens side by side for one picture's.
    "qwen2-vl": Decoder(
        native_models.qwen2_vl, qwen_eyes, typed, family="qwen2_vl", steps=True, without=("side by side",)
    ),
    "qwen2.5-vl": Decoder(
        native_models.qwen25_vl, qwen_eyes, typed, family="qwen2_5_vl", steps=True, without=("side by side",)
    ),
    "adaption-prompt": Decoder(prompted, llava_eyes, read=with_prompts, steps=True),
}  # fmt: skip
