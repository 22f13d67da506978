"""What our Processor makes of pictures and text is what the reference's own makes: pixel values, ids, and the places of the
pictures' tokens. Families whose prompts have marks or readers of their own have tests of their own beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from anyres_cases import Prompt, picture, talk
from decoders import DECODERS, PROMPTS
from test_matrix_answers import SYSTEMS
from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer

from sensorium.core.batch import Example
from sensorium.interop.hf import read_hf
from sensorium.model.config import ModelConfig
from sensorium.processing.processor import Processor
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.tokenizer import Tokenizer

TOKEN = "<image>"
# Width x height: both extremes, odd, and a whole number of patches.
ODD: dict[str, Prompt] = {str(size): [size, "x"] for size in ((1, 1), (500, 4), (4, 500), (61, 100), (112, 56))}


def tokenizers(begin: str | None = None, token: str = TOKEN) -> tuple[Tokenizer, Any]:
    """One vocabulary, as ours and as transformers holds it; the reference reads the image token out of text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    made = byte_tokenizer()
    made.rust.add_special_tokens([AddedToken(token, special=True)])
    rust = RustTokenizer.from_str(made.rust.to_str())
    rust.encode_special_tokens = False
    if begin:
        rust.post_processor = TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, made.special_id(begin))]
        )
    theirs = PreTrainedTokenizerFast(tokenizer_object=rust, pad_token="<|endoftext|>")
    bos = made.special_id(begin) if begin else None
    return Tokenizer(made.rust, bos_id=bos, eos_id=0, pad_id=0), theirs


def spelt(prompt: Prompt, mark: str) -> str:
    return "".join(part if isinstance(part, str) else mark for part in prompt)


@dataclass(frozen=True)
class Processing:
    """`make(eyes, tokenizer)` is the reference's processor. `around` is what the template writes around a
    question. `front`: it takes one picture, in front of all text."""

    make: Callable[[Any, Any], Any]
    mark: str = TOKEN
    token: str = TOKEN
    template: str = "caption"
    around: tuple[str, str] = ("", "")
    begin: str | None = None
    front: bool = False


def llava(eyes: Any, tokenizer: Any) -> Any:
    from transformers import LlavaProcessor

    return LlavaProcessor(eyes, tokenizer, patch_size=14, vision_feature_select_strategy="default",
                          num_additional_image_tokens=1)  # fmt: skip


def llava_next(eyes: Any, tokenizer: Any) -> Any:
    from transformers import LlavaNextProcessor

    return LlavaNextProcessor(eyes, tokenizer, patch_size=7, vision_feature_select_strategy="default",
                              num_additional_image_tokens=1)  # fmt: skip


def without_videos(name: str) -> Any:
    """A processor whose check of the video processor's class asks for torchvision."""
    import transformers

    class Unchecked(getattr(transformers, name)):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return type(argument)

    return Unchecked


def llava_onevision(eyes: Any, tokenizer: Any) -> Any:
    return without_videos("LlavaOnevisionProcessor")(
        eyes, tokenizer, None, num_image_tokens=16, vision_feature_select_strategy="full"
    )


def blip2(eyes: Any, tokenizer: Any) -> Any:
    from transformers import Blip2Processor

    return Blip2Processor(eyes, tokenizer, num_query_tokens=4)


def qwen(name: str) -> Processing:
    chat = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n")  # fmt: skip
    token = "<|image_pad|>"
    mark = f"<|vision_start|>{token}<|vision_end|>"
    return Processing(without_videos(name), mark, token, template="qwen2_vl", around=chat)


PROCESSINGS: dict[str, Processing] = {
    "llava": Processing(llava),
    "llava-next": Processing(llava_next),
    "llava-onevision": Processing(llava_onevision),
    "qwen2-vl": qwen("Qwen2VLProcessor"),
    "qwen2.5-vl": qwen("Qwen2_5_VLProcessor"),
    # OPT's tokenizer begins a text, behind the picture; T5's ends it.
    "blip2-opt": Processing(blip2, begin="<|im_start|>", front=True, template="bare"),
    "blip2-t5": Processing(blip2, around=("", "<|endoftext|>"), front=True, template="seq2seq"),
}  # fmt: skip


def prompts(how: Processing) -> dict[str, Prompt]:
    whole = {k: v for k, v in PROMPTS.items() if k not in ("side by side", "blind")} | ODD
    return {k: v for k, v in whole.items() if not how.front or (k == "start" or k in ODD)}


@pytest.fixture(scope="module", params=PROCESSINGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def config(name: str, tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """Read from a checkpoint with the reference's own preparation beside it."""
    how, folder = (DECODERS | SYSTEMS)[name], tmp_path_factory.mktemp("processing") / "hf"
    how.save(folder)
    how.eyes().save_pretrained(folder)
    return read_hf(folder).config


def same_pixels(config: ModelConfig, made: Example, given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours as the encoder sees them, and theirs in our order."""
    encoder: Any = config.lane("image").encoder.build()
    ours_NCHW = encoder.normalise(made.media["image"].pixels_NCHW)
    theirs = torch.as_tensor(given["pixel_values"]).float()
    if "image_grid_thw" not in given:
        return ours_NCHW, _real_tiles(theirs, made)
    patches: list[torch.Tensor] = []
    blocks = theirs.split([int(t * h * w) for t, h, w in given["image_grid_thw"]])
    for block, (_, rows, cols) in zip(blocks, given["image_grid_thw"].tolist(), strict=True):
        # Theirs come in blocks of 2 x 2, two equal frames of each.
        kept = block.view(rows // 2, cols // 2, 2, 2, 3, 2, 14, 14).transpose(1, 2)
        patches.append(kept.reshape(rows * cols, 3, 2, 14, 14)[:, :, 0])
    return ours_NCHW, torch.cat(patches)


def _real_tiles(theirs: torch.Tensor, made: Example) -> torch.Tensor:
    """Without what fills up pictures of fewer tiles."""
    if theirs.ndim == 4:
        return theirs
    counts = [plan.images for plan in made.media["image"].plans]
    return torch.cat([tiles[:count] for tiles, count in zip(theirs, counts, strict=True)])


def test_pixels_ids_and_places(name: str, config: ModelConfig, record: Callable[..., None]) -> None:
    how = PROCESSINGS[name]
    ours, theirs = tokenizers(how.begin, how.token)
    config = config.model_copy(update={"placeholder_token": how.token})
    reference = how.make((DECODERS | SYSTEMS)[name].eyes(), theirs)
    processor = Processor(config, ours, template=how.template)
    for prompt in prompts(how).values():
        seen = [picture(part) for part in prompt if not isinstance(part, str)]
        made = processor.encode(talk(prompt), answer_next=True)
        text = spelt(prompt, "" if how.front else how.mark).join(how.around)
        given = reference(images=[seen] if name == "llava-onevision" else seen, text=[text], return_tensors="pt")
        ids_T = torch.as_tensor(given["input_ids"])[0]
        assert made.input_ids == ids_T.tolist()
        slots = (ids_T == ours.special_id(how.token)).nonzero()[:, 0].tolist()
        assert made.slots["image"] == slots
        record(name, "ids", "placeholders")
        mine, wanted = same_pixels(config, made, given)
        assert mine.shape == wanted.shape
        record(name, "pixels", ours=mine, theirs=wanted)
