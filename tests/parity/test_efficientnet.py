"""Is our EfficientNet-Lite the same function as the reference implementation?"""

from __future__ import annotations

from pathlib import Path

import efficientnet_lite_pytorch
import pytest
import torch

from sensorium.core.errors import ConfigError
from sensorium.encoders.efficientnet_lite import VARIANTS, EfficientNetLiteConfig
from sensorium.interop.efficientnet import CLASSIFIER, convert_efficientnet, to_ours, to_reference

reference = efficientnet_lite_pytorch


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_reference(variant: str, tmp_path: Path) -> None:
    theirs = reference.EfficientNet.from_name(f"efficientnet-{variant}").eval()
    for module in theirs.modules():
        # Fresh statistics would hide a swap of mean and variance.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    convert_efficientnet(tmp_path / "weights.pth", tmp_path / "ours")
    ours = EfficientNetLiteConfig(variant=variant).build(tmp_path / "ours").eval()
    ours.normalise = torch.nn.Identity()
    size = VARIANTS[variant][2]
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected = theirs.extract_features(pixels)
        got = ours(pixels)
    grid = ours.config.grid()
    assert tuple(expected.shape[-2:]) == (grid.h, grid.w)
    map_NDHW = got.values_ND.view(2, grid.h * grid.w, -1).transpose(1, 2).unflatten(2, (grid.h, grid.w))
    torch.testing.assert_close(map_NDHW, expected, atol=1e-5, rtol=1e-5)


def test_key_map_round_trip() -> None:
    names = reference.EfficientNet.from_name("efficientnet-lite0").state_dict()
    for name in names:
        if name not in CLASSIFIER:
            assert to_reference(to_ours(name)) == name


def test_levels_lie_side_by_side_on_the_coarsest_grid() -> None:
    """Folding a finer map keeps each patch's values in the patch's own token."""
    config = EfficientNetLiteConfig(image_size_px=64, levels=("stride16", "head"))
    tower = config.build().eval()
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        both = tower(pixels)
        tower.config = EfficientNetLiteConfig(image_size_px=64, levels=("stride16",))
        fine = tower(pixels).values_ND.view(4, 4, 112)
        tower.config = EfficientNetLiteConfig(image_size_px=64, levels=("head",))
        coarse = tower(pixels).values_ND
    assert config.out_dim == both.dim == 4 * 112 + 1280
    torch.testing.assert_close(both.values_ND[:, 448:], coarse)
    corner = both.values_ND[0, :448].view(112, 2, 2)
    torch.testing.assert_close(corner.permute(1, 2, 0), fine[:2, :2])


@pytest.mark.parametrize("size", [1, 31, 33, 50, 72])
def test_any_size_gives_the_promised_grid(size: int) -> None:
    """No size needs to be a multiple of the stride; levels meet on the coarsest grid all the same."""
    config = EfficientNetLiteConfig(image_size_px=size, levels=("stride8", "stride16", "stride32", "head"))
    with torch.no_grad():
        features = config.build().eval()(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    assert features.grids == (config.grid(),)
    assert features.values_ND.shape == (config.grid().tokens, config.out_dim)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"levels": ()}, r"levels is empty; expected one or more of stride8"),
     ({"image_size_px": 0}, "image_size_px 0"), ({"image_size_px": -32}, "image_size_px -32")],
)  # fmt: skip
def test_shapes_without_features_are_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        EfficientNetLiteConfig.from_dict(change)
