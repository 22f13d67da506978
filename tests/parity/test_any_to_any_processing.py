"""Prompts and pixels of systems that read and make media, beside their authors' own arithmetic: which ids stand where, and what an encoder sees.

What the authors' files do with a question about a picture is written a second time below, over one vocabulary of bytes with a token that begins
a text; their picture transforms are CLIP's processor, or torchvision's steps in Pillow's terms.

Shape legend: C channels, H/W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken
from torch import Tensor

from sensorium.core.batch import Preprocess, TilePlan
from sensorium.core.picture_words import CODES
from sensorium.core.sample import parse_sample
from sensorium.media.image import load_image
from sensorium.model.config import ModelConfig
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.tokenizer import Tokenizer

SIZES = ((640, 427), (97, 401), (224, 224), (335, 224), (60, 200), (300, 301))
"""Width and height."""
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BEGIN = object()
"""What stands for the token that begins a text."""
SEEN = object()
"""What stands for a picture."""
Piece = Any
"""Text, one of the above, or the name of a control token in a tuple."""

USER = "A chat between a curious user and an artificial intelligence assistant. " \
       "The assistant gives helpful, detailed, and polite answers to the user's questions."  # fmt: skip
HUMAN = USER.replace("a curious user", "a curious human").replace("user's", "human's")
EMU2 = "You are a helpful assistant, dedicated to delivering comprehensive and meticulous responses."


def koh() -> list[Piece]:
    """FROMAGe's and GILL's `generate_for_images_and_texts`: the picture's embeddings, and texts, of which the first has the token in front."""
    return [SEEN, BEGIN, "What?"]


def next_gpt() -> list[Piece]:
    """`prompt_wrap`, behind the token that begins a text, and `build_one_instance_stage_1`."""
    return [BEGIN, "### Human: ", ("<Img>",), SEEN, ("</Img>",), " What?\n### Assistant: "]


def next_gpt_15() -> list[Piece]:
    """`preprocess_v1` with `tokenizer_multiple_token`: the picture on a line of its own, in front."""
    return [BEGIN, f"{USER} USER: ", SEEN, "\nWhat? ASSISTANT:"]


def emu() -> list[Piece]:
    """inference.py: no system message, so that what is written begins with the question."""
    return [BEGIN, ("[USER]",), ": ", ("[IMG]",), SEEN, ("[/IMG]",), "What? ", ("[ASSISTANT]",), ":"]


def emu2() -> list[Piece]:
    """demo/frontend/libs/meta.py and emu/emu.py, `image_placeholder`."""
    return [BEGIN, f"{EMU2} ", ("[USER]",), ": ", ("[IMG]",), SEEN, ("[/IMG]",), "What? ", ("[ASSISTANT]",), ":"]


def minigpt5() -> list[Piece]:
    """`input_warp` behind the token that begins a text; a prompt of MiniGPT-4's, behind which ours writes a space."""
    return [BEGIN, "###Human: <Img>", SEEN, "</Img> What? ###Assistant: "]


def seed() -> list[Piece]:
    """scripts/seed_llama_inference_8B.py."""
    return [BEGIN, "USER: ", ("<img>",), SEEN, ("</img>",), "What?\nASSISTANT:"]


def lisa() -> list[Piece]:
    """chat.py with `tokenizer_image_token`, and model/llava/conversation.py, llava_v1."""
    return [BEGIN, f"{HUMAN} USER: ", ("<im_start>",), SEEN, ("<im_end>",), "\nWhat? ASSISTANT:"]


def mgie() -> list[Piece]:
    """demo.ipynb with vicuna_v1_1."""
    return [BEGIN, f"{USER} USER: what will this image be like if 'it snows'\n", ("<im_start>",), SEEN, ("<im_end>",), " ASSISTANT:"]


@dataclass(frozen=True)
class Original:
    recipe: str
    asked: Callable[[], list[Piece]]
    pixels: Callable[[Image.Image], Tensor] | None
    question: tuple[str, ...] = ("image", "What?")


def clips_own(picture: Image.Image) -> Tensor:
    """`CLIPImageProcessor` with its published values."""
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor()(picture, return_tensors="pt")["pixel_values"][0]


def normalised(picture: Image.Image) -> Tensor:
    """torchvision's `ToTensor` and `Normalize`."""
    values_HWC = np.asarray(picture, dtype=np.float32) / 255.0
    return torch.from_numpy((values_HWC - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)).permute(2, 0, 1)


def cut(picture: Image.Image, method: Image.Resampling) -> Tensor:
    """torchvision's `Resize(224)`, whose longer side is cut off to a whole number, and `CenterCrop(224)`, whose halves go to the even one."""
    width, height = picture.size
    longer = int(224 * max(width, height) / min(width, height))
    size = (224, longer) if width <= height else (longer, 224)
    left, top = round((size[0] - 224) / 2.0), round((size[1] - 224) / 2.0)
    return normalised(picture.resize(size, method).crop((left, top, left + 224, top + 224)))


def imagebinds(picture: Image.Image) -> Tensor:
    """`load_and_transform_vision_data`."""
    return cut(picture, Image.Resampling.BICUBIC)


def minigpt5s(picture: Image.Image) -> Tensor:
    """train_eval.py, `input_vis_processor` without its mirror."""
    return cut(picture, Image.Resampling.BILINEAR)


def squeezed(side_px: int, resample: Image.Resampling) -> Callable[[Image.Image], Tensor]:
    """To a square, whatever the picture's shape."""
    return lambda picture: normalised(picture.resize((side_px, side_px), resample))


ORIGINALS = {
    "fromage": Original("fromage", koh, clips_own),
    "gill": Original("gill", koh, clips_own),
    "next-gpt": Original("next-gpt", next_gpt, imagebinds),
    "next-gpt-1.5": Original("next-gpt-1.5", next_gpt_15, None),
    "minigpt-5": Original("minigpt-5", minigpt5, minigpt5s),
    # utils.py, `process_img`: Pillow's own way of making smaller.
    "emu": Original("emu", emu, squeezed(224, Image.Resampling.BICUBIC)),
    # emu/chat.py.
    "emu2": Original("emu2-chat", emu2, squeezed(448, Image.Resampling.BICUBIC)),
    # configs/transform/clip_transform.yaml without the picture's shape kept; torchvision makes smaller by straight lines if not told otherwise.
    "seed": Original("seed-llama", seed, squeezed(224, Image.Resampling.BILINEAR)),
    "lisa": Original("lisa", lisa, clips_own),
    "mgie": Original("mgie", mgie, clips_own, ("what will this image be like if 'it snows'\n", "image")),
}


def with_begin(config: ModelConfig) -> tuple[ModelConfig, Tokenizer]:
    """A vocabulary of bytes, one token that begins a text, and all tokens that the model adds."""
    made = byte_tokenizer()
    tokenizer = Tokenizer(made.rust, bos_id=made.special_id("<|im_start|>"), eos_id=0, pad_id=0)
    tokens = getattr(config.backbone, "added_tokens", ())
    tokenizer.rust.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    return config, tokenizer


def picture(size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


INTERLEAVED: dict[str, tuple[tuple[str, ...], list[Piece]]] = {
    "text in front": (("First", "image", "What?"), [BEGIN, "First", SEEN, "What?"]),
    "in turn": (("image", "one", "image", "two"), [SEEN, BEGIN, "one", SEEN, "two"]),
}
"""Of FROMAGe's and GILL's prompts, which begin a text once, with its first words."""


def check(recipe: str, question: tuple[str, ...], asked: list[Piece]) -> None:
    """Ids and places of a question are those of these pieces."""
    config, tokenizer = with_begin(TINY_FORMS.find(recipe)().model)
    processor = Processor(config, tokenizer)
    content = [{"type": "image", "image": picture((61, 40))} if part == "image" else {"type": "text", "text": part} for part in question]
    made = processor.encode(parse_sample({"messages": [{"role": "user", "content": content}]}), answer_next=True)
    slots = made.slots[CODES if CODES in made.slots else "image"]
    each = len(slots) // question.count("image")
    expected: list[int] = []
    places: list[int] = []
    for piece in asked:
        if piece is SEEN:
            places += range(len(expected), len(expected) + each)
            # What stands in a slot does not matter: features, or a code's word, take its place.
            expected += [made.input_ids[slots[0]]] * each
        elif piece is BEGIN:
            assert tokenizer.bos_id is not None
            expected.append(tokenizer.bos_id)
        else:
            expected += tokenizer.encode(piece) if isinstance(piece, str) else [tokenizer.special_id(piece[0])]
    assert tokenizer.decode(made.input_ids, keep_special=True) == tokenizer.decode(expected, keep_special=True)
    assert made.input_ids == expected
    assert list(slots) == places


@pytest.mark.parametrize("name", ORIGINALS)
def test_ids_and_places(name: str, record: Callable[..., None]) -> None:
    original = ORIGINALS[name]
    check(original.recipe, original.question, original.asked())
    record(name, *(["placeholders"] if name == "minigpt-5" else ["ids", "placeholders"]))


@pytest.mark.parametrize("order", INTERLEAVED)
@pytest.mark.parametrize("name", ["fromage", "gill"])
def test_texts_and_pictures_in_turn(name: str, order: str, record: Callable[..., None]) -> None:
    check(name, *INTERLEAVED[order])
    record(name, "ids", "placeholders")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [name for name, original in ORIGINALS.items() if original.pixels is not None])
def test_pixels(name: str, size: tuple[int, int], record: Callable[..., None]) -> None:
    """At the published size."""
    original = ORIGINALS[name]
    assert original.pixels is not None
    config, seen = RECIPES.find(original.recipe)().model, picture(size)
    lane, words = config.lanes.get("image"), config.picture_words
    if lane is not None:
        how = lane.encoder.preprocess()
        cut_HWC = lane.resolution.cut(load_image(seen), TilePlan(), how)[0]
    else:
        assert words is not None
        how = Preprocess(words.tokenizer.size_px, CLIP_MEAN, CLIP_STD, words.interpolation)
        cut_HWC = words.resolution.cut(load_image(seen), TilePlan(), how)[0]
    ours = ((torch.from_numpy(cut_HWC).float() / 255.0 - torch.tensor(how.mean)) / torch.tensor(how.std)).permute(2, 0, 1)
    record(name, "pixels", ours=ours, theirs=original.pixels(seen))
