"""LLaVA-NeXT against transformers, beside test_matrix_*.py: pixels, placeholders and logits of many sizes, and the
way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyres_cases import (
    PROMPTS,
    SIZES,
    Prompt,
    assert_equal,
    encode,
    our_logits,
    picture,
)
from hf_models import NEXT_IMAGE_ID, NEXT_PINPOINTS, llava_next

from sensorium.core.batch import Example, Grid, MediaShape
from sensorium.core.errors import ConfigError
from sensorium.encoders.pixels import Normalise
from sensorium.interop.families.llava_next import PINPOINTS, LlavaNext, grids_of
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors
from sensorium.media.anyres import AnyResolution
from sensorium.media.image import BLACK
from sensorium.model.multimodal import MultimodalModel
from sensorium.text.byte_tokenizer import byte_tokenizer

# Height x width: a side on the map of one of the towers below is a whole number that floats miss.
MISSED = [[55, 176], [88, 55], [47, 188], [94, 376], [49, 49], [99, 187], [98, 441], [392, 147]]


def reference_processor(size_px: int, pinpoints: list[list[int]]) -> Any:
    """The reference's image processor that needs no torchvision."""
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    return LlavaNextImageProcessorPil(
        size={"shortest_edge": size_px},
        crop_size={"height": size_px, "width": size_px},
        image_grid_pinpoints=pinpoints,
    )


def reference_counter(size_px: int, patch_px: int, pinpoints: list[list[int]]) -> Any:
    """The reference's processor, which counts placeholders."""
    from transformers import LlavaNextProcessor, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer().rust)
    return LlavaNextProcessor(
        reference_processor(size_px, pinpoints), tokenizer, patch_size=patch_px,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip


def reference_inputs(prompt: Prompt, example: Example) -> dict[str, Any]:
    """The same prompt as the reference takes it: its own pixels, its own image token."""
    ids = torch.tensor([example.input_ids])
    pictures = [picture(p) for p in prompt if not isinstance(p, str)]
    if not pictures:
        return {"input_ids": ids}
    ids[0, example.slots["image"]] = NEXT_IMAGE_ID
    return {
        "input_ids": ids,
        **reference_processor(28, NEXT_PINPOINTS)(pictures, return_tensors="pt"),
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, MultimodalModel]:
    """One checkpoint, as the reference and as ours."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("next") / "hf"
    return llava_next(folder), read_hf(folder)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_logits_of_any_size(size: tuple[int, int], pair: tuple[Any, MultimodalModel]) -> None:
    theirs, ours = pair
    example = encode(ours.config, ["x", size, "y"])
    with torch.no_grad():
        expected = theirs(**reference_inputs(["x", size, "y"], example)).logits
    assert_equal(our_logits(ours, [[example]]), expected)


def test_maps_of_odd_sides(tmp_path: Path) -> None:
    """Tiles of 3 x 3 tokens, whose halves round otherwise than those of 4 x 4."""
    from transformers import LlavaNextForConditionalGeneration

    torch.manual_seed(0)
    llava_next(tmp_path / "hf", patch_px=9)
    theirs = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    ours = read_hf(tmp_path / "hf")
    for size in SIZES:
        example = encode(ours.config, [size, "y"])
        with torch.no_grad():
            expected = theirs(**reference_inputs([size, "y"], example)).logits
        assert_equal(our_logits(ours, [[example]]), expected)


def test_pixels() -> None:
    """What the tower sees is what the reference's processor makes, tile by tile."""
    for size_px, pinpoints, sizes in (
        (28, NEXT_PINPOINTS, SIZES),
        (336, [list(p) for p in PINPOINTS], [(640, 480), (333, 1001), (1200, 90)]),
    ):
        config = LlavaNext().to_ours(foreign(size_px, pinpoints))
        encoder = config.lane("image").encoder
        reference = reference_processor(size_px, pinpoints)
        for size in sizes:
            raw_NCHW = encode(config, [size]).media["image"].pixels_NCHW
            expected = reference([picture(size)], return_tensors="pt")["pixel_values"][0]
            assert raw_NCHW.shape == expected.shape
            got = Normalise(encoder.preprocess())(raw_NCHW)
            torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=0)


def foreign(size_px: int, pinpoints: list[list[int]]) -> dict[str, Any]:
    vision = {"model_type": "clip_vision_model", "image_size": size_px, "patch_size": 14}
    return {"vision_config": vision, "image_grid_pinpoints": pinpoints,
            "text_config": {"model_type": "llama", "vocab_size": 300}}  # fmt: skip


@pytest.mark.parametrize(("size_px", "patch_px"), [(28, 7), (336, 14), (384, 14), (27, 9)])
def test_placeholders(size_px: int, patch_px: int) -> None:
    """One formula of ours, against the reference's for some thousand sizes."""
    scale = size_px / 336
    pinpoints = [[round(h * scale), round(w * scale)] for h, w in PINPOINTS]
    counter = reference_counter(size_px, patch_px, pinpoints)
    tiles = AnyResolution(grids=grids_of(pinpoints, size_px), thumbnail_fit="stretch",
                          padding=BLACK, max_tokens=None)  # fmt: skip
    tile = Grid(size_px // patch_px, size_px // patch_px)
    random = np.random.default_rng(0)
    sizes = MISSED + np.exp(random.uniform(0, np.log(4000), (3000, 2))).astype(int).tolist()
    counts = counter._get_num_multimodal_tokens(image_sizes=sizes).num_image_tokens
    for (height, width), expected in zip(sizes, counts, strict=True):
        shape = MediaShape(height_px=height, width_px=width)
        assert tiles.plan(shape, size_px, tile).num_tokens(tile) == expected, (height, width)


def test_the_way_back(tmp_path: Path) -> None:
    from transformers import LlavaNextForConditionalGeneration

    theirs = llava_next(tmp_path / "hf")
    byte_tokenizer().save(tmp_path / "hf")
    ours = import_hf(tmp_path / "hf", tmp_path / "ours")
    export_hf(tmp_path / "ours", tmp_path / "back")
    assert same_tensors(tmp_path / "hf", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (tmp_path / "hf" / "config.json").read_text()
    )
    inputs = reference_inputs(PROMPTS[3], encode(ours.config, PROMPTS[3]))
    again = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, theirs(**inputs).logits)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="multiples of the tower's 28"):
        LlavaNext().to_ours(foreign(28, [[28, 57]]))
    with pytest.raises(ConfigError, match="CLS token"):
        LlavaNext().to_ours(
            foreign(28, NEXT_PINPOINTS) | {"vision_feature_select_strategy": "full"}
        )
    ours = LlavaNext().to_ours(foreign(28, NEXT_PINPOINTS))
    lane = ours.lane("image").model_copy(update={"resolution": AnyResolution()})
    with pytest.raises(ConfigError, match="tiles"):
        LlavaNext().to_theirs(ours.model_copy(update={"lanes": {"image": lane}}))
