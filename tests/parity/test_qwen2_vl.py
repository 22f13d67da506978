"""Qwen2-VL and Qwen2.5-VL against transformers: sizes, pixels, placeholders, positions, logits, greedy text, and the
way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyres_cases import (
    Case,
    Prompt,
    assert_equal,
    cases_of,
    encode,
    our_logits,
    picture,
)
from native_models import IMAGE_ID, qwen2_vl, qwen25_vl

from sensorium.core.batch import Example, Grid, MediaShape
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import parse_sample
from sensorium.encoders.pixels import Normalise
from sensorium.encoders.qwen2_vit import Qwen2VitConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.families import FAMILIES
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors
from sensorium.media.image import load_image
from sensorium.media.native import NativeResolution
from sensorium.media.resolution import FixedResolution
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.tokenizer import Tokenizer

# Text stands between pictures: the reference takes image tokens side by side for one picture's.
PROMPTS: list[Prompt] = [
    [(100, 30), "what is it?"],
    ["see ", (33, 170), " and tell"],
    ["name it: ", (30, 100)],
    ["a ", (28, 28), ",", (157, 55), " or ", (200, 3), "?"],
    [(3, 200), "-", (40, 40)],
    ["no picture at all"],
]
# Width x height: whole multiples, odd sides, both extremes, too small, too large.
SIZES = [(56, 56), (84, 112), (100, 30), (33, 171), (1, 1), (3, 500), (199, 1), (1500, 1100)]


def image_processor(**changes: Any) -> Any:
    """The reference's image processor that needs no torchvision."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(**changes)


def reference_inputs(prompt: Prompt, example: Example) -> dict[str, Any]:
    """The same prompt as the reference takes it: its own pixels, its own image token."""
    ids = torch.tensor([example.input_ids])
    pictures = [picture(p) for p in prompt if not isinstance(p, str)]
    if not pictures:
        return {"input_ids": ids}
    ids[0, example.slots["image"]] = IMAGE_ID
    return {
        "input_ids": ids,
        "mm_token_type_ids": (ids == IMAGE_ID).int(),
        **image_processor()(pictures, return_tensors="pt"),
    }


MAKERS = {"qwen2_vl": qwen2_vl, "qwen2_5_vl": qwen25_vl}


@pytest.fixture(scope="module", params=MAKERS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, MultimodalModel]:
    """One checkpoint, as the reference and as ours."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("qwen") / "hf"
    return MAKERS[request.param](folder), read_hf(folder)


@pytest.fixture(scope="module")
def cases(pair: tuple[Any, MultimodalModel]) -> list[Case]:
    return cases_of(*pair, PROMPTS, reference_inputs)


@pytest.mark.parametrize("size", SIZES[:-1], ids=str)
def test_logits_of_any_size(size: tuple[int, int], pair: tuple[Any, MultimodalModel]) -> None:
    theirs, ours = pair
    example = encode(ours.config, ["x", size, "y"])
    with torch.no_grad():
        expected = theirs(**reference_inputs(["x", size, "y"], example)).logits
    assert_equal(our_logits(ours, [[example]]), expected)


def test_places(pair: tuple[Any, MultimodalModel], cases: list[Case]) -> None:
    """Time, row and column of every token, also in packed rows and behind padding."""
    theirs, expected = pair[0].model, []
    for case in cases:
        grids = case.inputs.get("image_grid_thw")
        kinds = case.inputs.get("mm_token_type_ids", torch.zeros_like(case.inputs["input_ids"]))
        expected.append(theirs.get_rope_index(case.inputs["input_ids"], kinds, grids)[0][:, 0])
    packed = collate([[case.example for case in cases]], pad_id=0).places_3BT
    assert packed is not None
    assert torch.equal(packed[:, 0], torch.cat(expected, dim=1))
    left = collate([[case.example] for case in cases], pad_id=0, pad_left=True)
    assert left.places_3BT is not None
    for places_3T, want_3T, last in zip(
        left.places_3BT.unbind(1), expected, left.last_positions(), strict=True
    ):
        assert torch.equal(places_3T[:, -want_3T.shape[1] :], want_3T)
        assert int(last) == int(want_3T.max())


def test_sizes_and_placeholders() -> None:
    """Of some thousand shapes, against the reference's own function."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    random = np.random.default_rng(0)
    shapes = np.exp(random.uniform(0, np.log(6000), (4000, 2))).astype(int).tolist()
    for settings in ({}, {"min_pixels": 4 * 28 * 28, "max_pixels": 16384 * 28 * 28}):
        native = NativeResolution(**settings)
        for height, width in [(14, 14), (42, 70), (56, 1), *shapes]:
            shape = MediaShape(height_px=height, width_px=width)
            if max(height, width) > 200 * min(height, width):
                with pytest.raises(ValueError, match="aspect ratio"):
                    smart_resize(height, width)
                with pytest.raises(DataError, match="200 times"):
                    native.size(shape)
                continue
            expected = smart_resize(
                height, width, min_pixels=native.min_pixels, max_pixels=native.max_pixels
            )
            assert native.size(shape) == expected, (height, width)
            plan = native.plan(shape, 448, Grid(1, 1))
            assert plan.patches == Grid(expected[0] // 14, expected[1] // 14)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels(size: tuple[int, int]) -> None:
    """What the tower sees is what the reference makes, patch by patch."""
    native, encoder = NativeResolution(), Qwen2VitConfig.tiny()
    made = image_processor()([picture(size)], return_tensors="pt")
    _, rows, cols = made["image_grid_thw"][0].tolist()
    image = load_image(picture(size))
    plan = native.plan(image.shape, 448, Grid(1, 1))
    assert plan.patches == Grid(rows, cols)
    raw_NCHW = torch.from_numpy(native.cut(image, plan, encoder.preprocess())).permute(0, 3, 1, 2)
    # Theirs come in blocks of 2 x 2, two frames of each.
    theirs = made["pixel_values"].view(rows // 2, cols // 2, 2, 2, 3, 2, 14, 14)
    theirs = theirs.transpose(1, 2).reshape(rows * cols, 3, 2, 14, 14)
    got = Normalise(encoder.preprocess())(raw_NCHW)
    for frame in theirs.float().unbind(2):
        torch.testing.assert_close(got, frame, atol=1e-5, rtol=0)


def test_prompts_as_the_reference_tokenises_them(pair: tuple[Any, MultimodalModel]) -> None:
    """The same ids for a chat with two pictures, each image token in its place."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as RustTokenizer
    from transformers import PreTrainedTokenizerFast, Qwen2VLProcessor

    tokenizer = byte_tokenizer()
    tokenizer.rust.add_special_tokens([AddedToken("<|image_pad|>", special=True)])
    tokenizer = Tokenizer(tokenizer.rust, bos_id=None, eos_id=0, pad_id=0)
    config = pair[1].config.model_copy(update={"placeholder_token": "<|image_pad|>"})
    sizes = [(100, 30), (33, 170)]
    first, second = ({"type": "image", "image": picture(size)} for size in sizes)
    example = Processor(config, tokenizer).prompt(parse_sample({"messages": [
        {"role": "user", "content": [first, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": [{"type": "text", "text": "And "}, second]},
    ]}).messages)  # fmt: skip
    rust = RustTokenizer.from_str(tokenizer.rust.to_str())
    rust.encode_special_tokens = False

    class WithoutVideos(Qwen2VLProcessor):
        """Its check of the video processor's class asks for torchvision."""

        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return type(argument)

    reference = WithoutVideos(image_processor(), PreTrainedTokenizerFast(tokenizer_object=rust))
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    text = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n{mark}What is it?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n"
            f"<|im_start|>user\nAnd {mark}<|im_end|>\n<|im_start|>assistant\n")  # fmt: skip
    made = reference(text=[text], images=[picture(size) for size in sizes], return_tensors="pt")
    assert made["input_ids"][0].tolist() == example.input_ids
    assert made["mm_token_type_ids"][0].nonzero()[:, 0].tolist() == example.slots["image"]
    assert [p.patches for p in example.media["image"].plans] == [
        Grid(rows, cols) for _, rows, cols in made["image_grid_thw"].tolist()
    ]


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("tie", [False, True])
def test_the_way_back(family: str, tie: bool, tmp_path: Path) -> None:
    """As it came, and without the foreign config that an imported model keeps."""
    theirs = MAKERS[family](tmp_path / "hf", tie=tie)
    byte_tokenizer().save(tmp_path / "hf")
    image_processor(min_pixels=784, max_pixels=78400).save_pretrained(tmp_path / "hf")
    ours = import_hf(tmp_path / "hf", tmp_path / "ours")
    native = ours.config.lane("image").resolution
    assert native == NativeResolution(min_pixels=784, max_pixels=78400)
    export_hf(tmp_path / "ours", tmp_path / "back")
    assert same_tensors(tmp_path / "hf", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (tmp_path / "hf" / "config.json").read_text()
    )
    (tmp_path / "ours" / "foreign.json").unlink()
    export_hf(tmp_path / "ours", tmp_path / "again", family)
    assert same_tensors(tmp_path / "hf", tmp_path / "again")
    again = type(theirs).from_pretrained(tmp_path / "again").eval()
    (tmp_path / "hf" / "preprocessor_config.json").unlink()
    inputs = reference_inputs(PROMPTS[3], encode(read_hf(tmp_path / "hf").config, PROMPTS[3]))
    with torch.no_grad():
        expected = theirs(**inputs).logits
        inputs["input_ids"][inputs["input_ids"] == IMAGE_ID] = again.config.image_token_id
        assert torch.equal(again(**inputs).logits, expected)


@pytest.mark.parametrize("family", MAKERS)
def test_flat_configs_are_understood(family: str, tmp_path: Path) -> None:
    """Published checkpoints hold the language model's numbers beside `vision_config`."""
    MAKERS[family](tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    found = FAMILIES.find(family)()
    nested = found.to_ours(config)
    text = {k: v for k, v in config.pop("text_config").items() if k != "model_type"}
    rope = text.pop("rope_parameters")
    text |= {"rope_theta": rope["rope_theta"],
             "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}  # fmt: skip
    file = tmp_path / "hf" / "config.json"
    expected = read_hf_logits(tmp_path / "hf")
    file.write_text(json.dumps(config | text))
    assert found.to_ours(config | text).lanes == nested.lanes
    assert torch.equal(read_hf_logits(tmp_path / "hf"), expected)


def read_hf_logits(folder: Path) -> torch.Tensor:
    ours = read_hf(folder)
    return our_logits(ours, [[encode(ours.config, PROMPTS[3])]])


def test_what_does_not_fit_is_named(pair: tuple[Any, MultimodalModel]) -> None:
    config, family = pair[1].config, FAMILIES.find(pair[0].config.model_type)()
    lane = config.lane("image").model_copy(update={"resolution": FixedResolution()})
    with pytest.raises(ConfigError, match="native"):
        family.to_theirs(config.model_copy(update={"lanes": {"image": lane}}))
    other = config.lane("image").model_copy(update={"projector": MlpConfig()})
    with pytest.raises(ConfigError, match="patch_merger"):
        family.to_theirs(config.model_copy(update={"lanes": {"image": other}}))
