"""LLaVA-OneVision against transformers, pictures only: as for LLaVA-NeXT, and what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyres_cases import (
    SIZES,
    Prompt,
    assert_equal,
    encode,
    our_logits,
    picture,
)
from hf_models import NEXT_IMAGE_ID, ONEVISION_PINPOINTS, llava_onevision

from sensorium.core.batch import Example, Grid, MediaShape
from sensorium.core.errors import ConfigError
from sensorium.encoders.pixels import Normalise
from sensorium.interop.families.llava_onevision import PINPOINTS, LlavaOnevision
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors
from sensorium.media.anyres import AnyResolution
from sensorium.model.multimodal import MultimodalModel
from sensorium.text.byte_tokenizer import byte_tokenizer

# Width x height of pictures whose maps are shrunk, and of one just below.
LARGE = [(168, 168), (168, 100), (90, 168), (150, 149), (100, 97), (400, 390), (84, 84)]
MEAN = [0.6, 0.5, 0.4]


def reference_processor(size_px: int, pinpoints: list[list[int]]) -> Any:
    """The reference's image processor that needs no torchvision."""
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    return LlavaOnevisionImageProcessorPil(
        size={"height": size_px, "width": size_px}, image_grid_pinpoints=pinpoints,
        image_mean=MEAN, image_std=[0.5, 0.5, 0.5],
    )  # fmt: skip


def checkpoint(folder: Path, **options: Any) -> Any:
    """With the image processor's file, whose mean is not SigLIP's own, and a tokenizer."""
    model = llava_onevision(folder, **options)
    reference_processor(28, ONEVISION_PINPOINTS).save_pretrained(folder)
    byte_tokenizer().save(folder)
    return model


def reference_inputs(prompt: Prompt, example: Example) -> dict[str, Any]:
    """The same prompt as the reference takes it, its pictures as those of one conversation."""
    ids = torch.tensor([example.input_ids])
    pictures = [picture(p) for p in prompt if not isinstance(p, str)]
    if not pictures:
        return {"input_ids": ids}
    ids[0, example.slots["image"]] = NEXT_IMAGE_ID
    processor = reference_processor(28, ONEVISION_PINPOINTS)
    return {"input_ids": ids, **processor([pictures], return_tensors="pt")}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, MultimodalModel]:
    """One checkpoint, as the reference and as ours."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("onevision") / "hf"
    return checkpoint(folder), read_hf(folder)


@pytest.mark.parametrize("size", [*SIZES, *LARGE], ids=str)
def test_logits_of_any_size(size: tuple[int, int], pair: tuple[Any, MultimodalModel]) -> None:
    theirs, ours = pair
    example = encode(ours.config, ["x", size, "y"])
    with torch.no_grad():
        expected = theirs(**reference_inputs(["x", size, "y"], example)).logits
    assert_equal(our_logits(ours, [[example]]), expected)


def test_pixels(pair: tuple[Any, MultimodalModel]) -> None:
    """Alone a picture is tiles; beside others it is one square, padded with the mean colour."""
    config = pair[1].config
    normalise = Normalise(config.lane("image").encoder.preprocess())
    reference = reference_processor(28, ONEVISION_PINPOINTS)
    for sizes in [[size] for size in [*SIZES, *LARGE]] + [SIZES, [(900, 2), (2, 900)]]:
        raw_NCHW = encode(config, [*sizes]).media["image"].pixels_NCHW
        pictures = reference([[picture(size) for size in sizes]], return_tensors="pt")
        expected = pictures["pixel_values"].flatten(0, 1)
        assert raw_NCHW.shape == expected.shape
        torch.testing.assert_close(normalise(raw_NCHW), expected.float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("max_tiles", [9, 1, 4])
@pytest.mark.parametrize(("size_px", "patch_px"), [(28, 7), (384, 14), (27, 9)])
def test_placeholders(size_px: int, patch_px: int, max_tiles: int) -> None:
    """One formula of ours, against the reference's for a thousand sizes."""
    pinpoints = [[h // 384 * size_px, w // 384 * size_px] for h, w in PINPOINTS]
    counter = reference_counter(size_px, size_px // patch_px, max_tiles, pinpoints)
    tiles = LlavaOnevision().to_ours(foreign(size_px, pinpoints, f"anyres_max_{max_tiles}"))
    resolution, tile = tiles.lane("image").resolution, Grid(*[size_px // patch_px] * 2)
    random = np.random.default_rng(0)
    for height, width in np.exp(random.uniform(0, np.log(4000), (1000, 2))).astype(int).tolist():
        expected = counter._get_number_of_features(height, width, size_px, size_px)
        shape = MediaShape(height_px=height, width_px=width)
        assert resolution.plan(shape, size_px, tile).num_tokens(tile) == expected, (height, width)
        assert resolution.plan(shape, size_px, tile, 2).num_tokens(tile) == tile.tokens + 1


def reference_counter(size_px: int, side: int, max_tiles: int, pinpoints: list[list[int]]) -> Any:
    """The reference's processor, which counts placeholders; without its part for videos, which
    needs torchvision."""
    from transformers.models.llava_onevision.processing_llava_onevision import (
        LlavaOnevisionProcessor,
    )

    counter = object.__new__(LlavaOnevisionProcessor)
    counter.image_processor = reference_processor(size_px, pinpoints)
    counter.num_image_tokens = side * side
    counter.vision_aspect_ratio = f"anyres_max_{max_tiles}"
    return counter


def foreign(
    size_px: int, pinpoints: list[list[int]], aspect: str = "anyres_max_9"
) -> dict[str, Any]:
    return {"vision_config": {"image_size": size_px, "patch_size": 14},
            "image_grid_pinpoints": pinpoints, "vision_aspect_ratio": aspect,
            "text_config": {"model_type": "qwen2", "vocab_size": 300}}  # fmt: skip


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("kept", [True, False])
def test_the_way_back(kept: bool, tie: bool, tmp_path: Path) -> None:
    """With the foreign config that an imported model keeps, and without it."""
    from transformers import LlavaOnevisionForConditionalGeneration

    theirs = checkpoint(tmp_path / "hf", tie=tie, max_tiles=4)
    ours = import_hf(tmp_path / "hf", tmp_path / "ours")
    if not kept:
        (tmp_path / "ours" / "foreign.json").unlink()
    export_hf(tmp_path / "ours", tmp_path / "back", "llava_onevision")
    assert same_tensors(tmp_path / "hf", tmp_path / "back")
    again = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    if kept:
        configs = [json.loads((tmp_path / f / "config.json").read_text()) for f in ("hf", "back")]
        assert configs[0] == configs[1]
    example = encode(ours.config, ["a ", (168, 168), "b"])
    inputs = reference_inputs(["a ", (168, 168), "b"], example)
    with torch.no_grad():
        expected = theirs(**inputs).logits
        # Features replace the image token's embedding, so that any id may stand for it.
        inputs["input_ids"][inputs["input_ids"] == NEXT_IMAGE_ID] = again.config.image_token_id
        assert torch.equal(again(**inputs).logits, expected)
    assert_equal(our_logits(ours, [[example]]), expected)


def test_what_does_not_fit_is_named() -> None:
    family = LlavaOnevision()
    with pytest.raises(ConfigError, match="anyres_max_9 or the like"):
        family.to_ours(foreign(28, ONEVISION_PINPOINTS, "pad"))
    ours = family.to_ours(foreign(28, ONEVISION_PINPOINTS))
    for resolution in (AnyResolution(), AnyResolution(max_tiles=9)):
        lane = ours.lane("image").model_copy(update={"resolution": resolution})
        with pytest.raises(ConfigError, match="tiles"):
            family.to_theirs(ours.model_copy(update={"lanes": {"image": lane}}))
