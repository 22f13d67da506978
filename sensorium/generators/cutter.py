"""A small net that cuts out what fills a box: colours around the box -> its mask.

Where a model writes boxes, that is all a mask needs: what the thing is has been settled by then, and an outline is a
matter of colours and edges. A U-Net (arXiv:1505.04597) on a window of fixed size, a quarter of a million parameters.

Shape legend: N windows, S pixels along a window's side, C channels, H/W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.atomic import atomic_folder
from sensorium.core.boxes import Box
from sensorium.core.errors import ConfigError, GenerationError
from sensorium.core.hands import (
    CancelledError,
    ConditionShape,
    GeneratorConfig,
    Made,
    MadeKind,
    Making,
)
from sensorium.nn.pretrained import load_folder, need_weights

GROUPS = 4
"""Channels are normed in so many groups."""
LEVELS = 4
"""Resolutions, each half of the one before."""


class CutterConfig(GeneratorConfig):
    kind: Literal["cutter"] = "cutter"
    side_px: int = Field(default=64, ge=16, multiple_of=8)
    """Of the window that it sees, whatever the box's size."""
    width: int = Field(default=16, ge=4, multiple_of=4)
    margin: float = Field(default=0.25, ge=0)
    """What is seen around a box, as a share of its sides: boxes that a model writes are not exact."""

    @classmethod
    def tiny(cls) -> CutterConfig:
        return cls(side_px=16, width=4)

    @property
    def makes(self) -> MadeKind:
        return "mask"

    @property
    def cuts_boxes(self) -> bool:
        return True

    @property
    def condition(self) -> ConditionShape:
        raise ConfigError("generator cutter is told by boxes, and has no condition",
                          fix="leave out the hand's signals and projector")  # fmt: skip

    def fetch(self, path: str) -> str:
        return f"none is published; sensorium train nano-points makes one: copy generators/mask of its model to {path}, or name that folder"

    def build(self, folder: Path | None = None) -> Cutter:
        cutter = Cutter(self)
        if folder is not None:
            need_weights(folder, self.fetch(str(folder)))
            load_folder(cutter, folder, self.fetch(str(folder)))
        return cutter.eval()


class Cutter(nn.Module):
    """Behind the promise `Cuts`, and behind one that gradients pass through."""

    def __init__(self, config: CutterConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2 ** min(level, 2) for level in range(LEVELS)]
        self.down = nn.ModuleList(_block(before, after) for before, after in zip([4, *widths], widths, strict=False))
        self.up = nn.ModuleList(_block(widths[i + 1] + widths[i], widths[i]) for i in reversed(range(LEVELS - 1)))
        self.out = nn.Conv2d(widths[0], 1, 1)

    @property
    def decoder(self) -> nn.Module:
        """What learns of it: all."""
        return self

    def save(self, folder: Path) -> None:
        """Write it in its native layout."""
        from safetensors.torch import save_file

        with atomic_folder(folder) as target:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, target / "model.safetensors")

    def forward(self, windows_NCSS: Tensor) -> Tensor:
        """Logits of what is inside, (N, S, S)."""
        x_NCSS, kept = windows_NCSS, list[Tensor]()
        for level, block in enumerate(self.down):
            x_NCSS = block(F.avg_pool2d(x_NCSS, 2) if level else x_NCSS)
            kept.append(x_NCSS)
        for block, finer_NCSS in zip(self.up, reversed(kept[:-1]), strict=True):
            x_NCSS = block(torch.cat([F.interpolate(x_NCSS, scale_factor=2.0), finer_NCSS], dim=1))
        return self.out(x_NCSS)[:, 0]

    def windows(self, picture_HWC: NDArray[np.uint8], boxes: Sequence[Box]) -> tuple[Tensor, list[Frame]]:
        """What it sees of boxes, (N, 4, S, S): colours, and where the box is; and where the windows lie.

        Raises:
            ConfigError: the picture is no array of RGB bytes.
        """
        if picture_HWC.dtype != np.uint8 or picture_HWC.ndim != 3 or picture_HWC.shape[2] != 3:
            raise ConfigError(f"a picture of shape {picture_HWC.shape} and type {picture_HWC.dtype}", expected="uint8 (H, W, 3)")
        picture, side = PILImage.fromarray(picture_HWC), self.config.side_px
        frames = [_frame(box, self.config.margin) for box in boxes]
        colours = [np.asarray(picture.crop(frame).resize((side, side), PILImage.Resampling.BOX)) for frame in frames]
        colours_N3SS = torch.from_numpy(np.stack(colours)).permute(0, 3, 1, 2).float() / 127.5 - 1
        inside_N1SS = torch.from_numpy(np.stack([_inside(box, frame, side) for box, frame in zip(boxes, frames, strict=True)]))
        return torch.cat([colours_N3SS, inside_N1SS[:, None].float()], dim=1).to(self.out.weight), frames

    def truths(self, mask_HW: NDArray[np.bool_], frame: Frame) -> Tensor:
        """A mask as its window shows it, (S, S)."""
        shown = PILImage.fromarray(mask_HW.astype(np.uint8) * 255).crop(frame)
        side = self.config.side_px
        return torch.from_numpy(np.asarray(shown.resize((side, side), PILImage.Resampling.BOX)) >= 128)

    @torch.no_grad()
    def cut(self, picture_HWC: NDArray[np.uint8], boxes: Sequence[Box], making: Making = Making()) -> list[Made]:
        if making.cancelled is not None and making.cancelled():
            raise CancelledError
        if not boxes:
            return []
        windows_NCSS, frames = self.windows(picture_HWC, boxes)
        logits_NSS = self(windows_NCSS).float().cpu()
        if not bool(logits_NSS.isfinite().all()):
            raise GenerationError("masks that are not finite", where="generator cutter",
                                  fix="its weights are damaged: copy them again, or train it anew")  # fmt: skip
        return [Made("mask", _to_picture(logits_SS, frame, picture_HWC.shape[:2]))
                for logits_SS, frame in zip(logits_NSS, frames, strict=True)]  # fmt: skip


Frame = tuple[int, int, int, int]
"""A window's left, top, right and bottom in the picture's pixels; it may reach beyond the picture, which is black there."""


def _block(before: int, after: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(GROUPS, after), nn.SiLU(),
        nn.Conv2d(after, after, 3, padding=1), nn.GroupNorm(GROUPS, after), nn.SiLU(),
    )  # fmt: skip


def _frame(box: Box, margin: float) -> Frame:
    dx, dy = margin * (box.x1 - box.x0), margin * (box.y1 - box.y0)
    left, top = int(np.floor(box.x0 - dx)), int(np.floor(box.y0 - dy))
    return left, top, max(left + 1, int(np.ceil(box.x1 + dx))), max(top + 1, int(np.ceil(box.y1 + dy)))


def _inside(box: Box, frame: Frame, side: int) -> NDArray[np.bool_]:
    """(S, S) true where a window's pixel has its middle in the box."""
    x_S = frame[0] + (np.arange(side) + 0.5) * (frame[2] - frame[0]) / side
    y_S = frame[1] + (np.arange(side) + 0.5) * (frame[3] - frame[1]) / side
    return ((y_S >= box.y0) & (y_S <= box.y1))[:, None] & ((x_S >= box.x0) & (x_S <= box.x1))[None]


def _to_picture(logits_SS: Tensor, frame: Frame, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) true inside."""
    height, width = size
    left, top, right, bottom = frame
    shown = F.interpolate(logits_SS[None, None], (bottom - top, right - left), mode="bilinear", align_corners=False)[0, 0] > 0
    mask_HW = np.zeros(size, dtype=bool)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, right), min(height, bottom)
    if x1 > x0 and y1 > y0:
        mask_HW[y0:y1, x0:x1] = shown.numpy()[y0 - top : y1 - top, x0 - left : x1 - left]
    return mask_HW
