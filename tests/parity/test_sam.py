"""SAM's promptable decoder beside transformers' SamModel, and LISA's way into it: a vector as the sparse prompt.

Shape legend: N prompts, P vectors, C their width, M masks, S side of SAM's square, H/W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.core.boxes import Box, Point
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.hands import CancelledError, Making
from sensorium.generators import GENERATORS
from sensorium.generators.sam import Sam, SamConfig, square_pixels

SIZES = [(64, 64), (40, 60), (97, 31), (300, 201), (5, 64), (7, 5), (1, 500)]
WIDTH = SamConfig.tiny().prompt_width


@pytest.fixture(scope="module")
def theirs() -> Any:
    from transformers import SamModel

    torch.manual_seed(0)
    model = SamModel(SamConfig.tiny().native()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name or "bias" in name:
                parameter.normal_(0, 0.2)
    return model


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sam")
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> Sam:
    return GENERATORS.find("sam").tiny().build(folder)


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def processor() -> Any:
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    square = {"height": 64, "width": 64}
    return SamImageProcessorPil(size={"longest_edge": 64}, pad_size=square)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def equal(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES[:-1])
def test_pixels(ours: Sam, size: tuple[int, int]) -> None:
    image = picture(*size)
    wanted = processor()(images=image, return_tensors="pt")
    view = ours.look(image).view
    equal(square_pixels(image, view), wanted["pixel_values"])
    # The whole picture lies in the square as far as the reference says.
    whole = view.forward(Box(0, 0, size[1], size[0]))
    assert (round(whole.y1, 6), round(whole.x1, 6)) == tuple(wanted["reshaped_input_sizes"][0])


@pytest.mark.parametrize("size", SIZES[:4])
@pytest.mark.parametrize("several", [False, True])
def test_points_and_boxes(theirs: Any, ours: Sam, size: tuple[int, int], several: bool, record: Callable[..., None]) -> None:
    from transformers import SamProcessor

    image, (height, width) = picture(*size), size
    points = [(Point(width * 0.3, height * 0.6), True), (Point(width * 0.9, 0), False)]
    box = Box(width * 0.1, height * 0.2, width * 0.7, height)
    reader: Any = SamProcessor(processor())
    looked = ours.look(image)
    for some, around in ((points, None), (points[:1], None), ([], box), (points, box)):
        given: dict[str, Any] = {}
        if some:
            given["input_points"] = [[list(p.numbers) for p, _ in some]]
            given["input_labels"] = [[int(inside) for _, inside in some]]
        if around is not None:
            given["input_boxes"] = [[list(around.numbers)]]
        inputs = reader(images=image, return_tensors="pt", **given)
        # The square's numbers in single precision.
        for key in ("input_points", "input_boxes"):
            if key in inputs:
                inputs[key] = inputs[key].float()
        sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
        wanted = theirs(**inputs, multimask_output=several)
        logits_NMLL, quality_NM = ours.decode(looked, ours.place_prompt(looked, some, around), several=several)
        assert logits_NMLL.shape[1] == (3 if several else 1)
        record("sam", "made", ours=logits_NMLL, theirs=wanted.pred_masks[0])
        record("sam", "made", ours=quality_NM, theirs=wanted.iou_scores[0])
        (full,) = reader.image_processor.post_process_masks([wanted.pred_masks[0]], *sizes, binarize=False)
        record("sam", "made", ours=ours.to_picture(logits_NMLL, looked), theirs=full)


@pytest.mark.parametrize("vectors", [1, 3])
def test_a_vector_as_the_sparse_prompt(theirs: Any, ours: Sam, vectors: int, record: Callable[..., None]) -> None:
    """As LISA calls the decoder: each vector a prompt of its own, beside the embedding of no mask, one mask for each."""
    image = picture(40, 60)
    looked = ours.look(image)
    prompts_NPC = torch.randn(4, vectors, WIDTH)
    logits_NMLL, quality_NM = ours.decode(looked, prompts_NPC)
    embedding = theirs.get_image_embeddings(processor()(images=image, return_tensors="pt")["pixel_values"])
    record("sam", "made", ours=looked.embedding_1CGG, theirs=embedding)
    dense = theirs.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(embedding)
    for n in range(4):
        logits, quality = theirs.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=theirs.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompts_NPC[None, n : n + 1],
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        record("sam", "made", ours=logits_NMLL[n], theirs=logits[0, 0])
        record("sam", "made", ours=quality_NM[n], theirs=quality[0, 0])


def test_masks_are_made_of_pictures_each_looked_at_once(ours: Sam) -> None:
    first, second = picture(40, 60), picture(1, 500)
    condition_BLC = torch.randn(3, 1, WIDTH)
    looks: list[int] = []
    steps: list[tuple[int, int]] = []
    handle = ours.model.vision_encoder.register_forward_hook(lambda *_: looks.append(1))
    try:
        making = Making(pictures=(first, second, first), progress=lambda *at: steps.append(at))
        made = ours.generate(condition_BLC, making=making)
    finally:
        handle.remove()
    assert (len(looks), steps) == (2, [(1, 3), (2, 3), (3, 3)])
    assert [(m.kind, m.array.shape, m.array.dtype) for m in made] == [
        ("mask", (40, 60), np.bool_), ("mask", (1, 500), np.bool_), ("mask", (40, 60), np.bool_)]  # fmt: skip
    looked = ours.look(first)
    logits_NMLL, _ = ours.decode(looked, condition_BLC)
    wanted = ours.to_picture(logits_NMLL, looked)[:, 0].numpy() > 0
    assert wanted[0].any()
    assert not wanted[0].all()
    assert np.array_equal(made[0].array, wanted[0])
    again = ours.generate(condition_BLC[2:], making=Making(pictures=(first,), size=(40, 60)))
    assert np.array_equal(again[0].array, made[2].array)


def test_what_cannot_be_made_is_named(ours: Sam) -> None:
    image, one = picture(8, 9), torch.randn(2, 1, WIDTH)
    grey = image[..., 0]
    for condition, making, wrong in (
        (one, Making(), "0 pictures for 2 items"),
        (one, Making(pictures=(image,) * 3), "3 pictures for 2"),
        (one[0], Making(pictures=(image,)), r"shape \(1, 32\)"),
        (one[..., 1:], Making(pictures=(image,)), r"shape \(2, 1, 31\)"),
        (one, Making(pictures=(image,), size=(9, 8)), r"size \(9, 8\)"),
        (one, Making(pictures=(grey,)), r"shape \(8, 9\)"),
        (one, Making(pictures=(image.astype(np.float32),)), "float32"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            ours.generate(condition, making=making)
    with pytest.raises(ConfigError, match="no guidance"):
        ours.generate(one, negative_BLC=one, making=Making(pictures=(image,)))
    with pytest.raises(CancelledError):
        ours.generate(one, making=Making(pictures=(image,), cancelled=lambda: True))
    with pytest.raises(ConfigError, match="without a point or a box"):
        ours.place_prompt(ours.look(image))


def test_gradients_reach_the_prompt_and_the_decoder_alone(ours: Sam) -> None:
    """What LISA trains: the decoder, and whatever made the vector."""
    image, learner = picture(40, 60), SamConfig.tiny().build()
    learner.load_state_dict(ours.state_dict())
    learner.requires_grad_(requires_grad=False)
    learner.model.mask_decoder.requires_grad_(requires_grad=True)
    with torch.enable_grad():
        prompts_NPC = torch.randn(1, 1, WIDTH, requires_grad=True)
        looked = learner.look(image)
        learner.to_picture(learner.decode(looked, prompts_NPC)[0], looked).square().mean().backward()
    assert not looked.embedding_1CGG.requires_grad
    assert prompts_NPC.grad is not None
    assert prompts_NPC.grad.abs().sum() > 0
    moved = {n for n, p in learner.named_parameters() if p.grad is not None}
    assert moved
    assert all(n.startswith("model.mask_decoder.") for n in moved)
    learner.model.vision_encoder.requires_grad_(requires_grad=True)
    with torch.enable_grad():
        assert learner.look(image).embedding_1CGG.requires_grad


def test_folders_there_and_back(theirs: Any, ours: Sam, tmp_path: Path, record: Callable[..., None]) -> None:
    from transformers import SamModel

    ours.model.save_pretrained(tmp_path)
    back = SamModel.from_pretrained(tmp_path).state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back[name], tensor), name
    record("sam", "weights")
    with pytest.raises(WeightsError):
        SamConfig.tiny().model_copy(update={"layers": 3}).build(tmp_path)


def test_published_size() -> None:
    """segment-anything.com: 632M parameters in the image encoder, which leaves its table of places out, and 4M beside it."""
    with torch.device("meta"):
        model = SamConfig().blank().model
    encoder = sum(p.numel() for p in model.vision_encoder.parameters())
    rest = sum(p.numel() for p in model.parameters()) - encoder
    assert round((encoder - model.vision_encoder.pos_embed.numel()) / 1e6) == 632
    assert round(rest / 1e6) == 4
    assert SamConfig().condition.width == 256
