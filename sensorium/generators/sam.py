"""Segment Anything's promptable mask decoder: a vector, points or boxes -> masks of a picture.

What a vector says is what a point or a box says to SAM: a sparse prompt, beside the embedding for "no mask given".
LISA makes the vector from an LLM's hidden state. A picture is embedded once, for however many prompts.

Sources: SAM (arXiv:2304.02643), through transformers; LISA (arXiv:2308.00692; github.com/dvlab-research/LISA,
model/segment_anything).

Shape legend: N prompts of one picture, P vectors of a prompt, C their width, M masks of a prompt (one, or three of
growing size), G cells along a side of the picture's embedding, L cells along a side of a mask, H/W pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.boxes import Box, Point, View
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.hands import (
    CancelledError,
    ConditionShape,
    GeneratorConfig,
    Made,
    MadeKind,
    Making,
)
from sensorium.nn.pretrained import from_config, from_hub, need_weights

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PUBLISHED = {(768, 12): ("facebook/sam-vit-base", "sam_vit_b_01ec64.pth"), (1024, 24): ("facebook/sam-vit-large", "sam_vit_l_0b3195.pth"),
             (1280, 32): ("facebook/sam-vit-huge", "sam_vit_h_4b8939.pth")}  # fmt: skip
"""Hub id, and the authors' file, by width and layers of the encoder."""
AUTHORS = "https://dl.fbaipublicfiles.com/segment_anything/"


class SamConfig(GeneratorConfig):
    """Defaults are SAM ViT-H, LISA's."""

    kind: Literal["sam"] = "sam"
    width: int = 1280
    layers: int = 32
    heads: int = 16
    global_layers: tuple[int, ...] = (7, 15, 23, 31)
    """Layers whose attention is not confined to windows."""
    window: int = 14
    image_size_px: int = 1024
    patch_size_px: int = 16
    prompt_width: int = 256
    decoder_layers: int = 2
    decoder_heads: int = 8
    decoder_mlp_width: int = 2048
    decoder_norm_eps: float = 1e-6
    """Of the norms of the decoder's layers. transformers has 1e-6, SAM's authors, and LISA's, 1e-5."""

    @classmethod
    def tiny(cls) -> SamConfig:
        return cls(width=32, layers=2, heads=4, global_layers=(1,), window=3, image_size_px=64, patch_size_px=8,
                   prompt_width=32, decoder_layers=1, decoder_heads=4, decoder_mlp_width=48)  # fmt: skip

    @property
    def makes(self) -> MadeKind:
        return "mask"

    @property
    def looks(self) -> bool:
        return True

    @property
    def cuts_boxes(self) -> bool:
        return True

    @property
    def condition(self) -> ConditionShape:
        return ConditionShape(1, self.prompt_width)

    @property
    def published_as(self) -> str | None:
        """The hub id of published weights of this size; None: there are none."""
        return PUBLISHED.get((self.width, self.layers), (None,))[0]

    def fetch(self, path: str) -> str:
        # Of another size, the best known one is an example.
        hub, file = PUBLISHED.get((self.width, self.layers), PUBLISHED[1280, 32])
        return f"curl -L -o {path} {AUTHORS}{file}" if path.endswith(".pth") else from_hub(hub, path)

    def build(self, folder: Path | None = None) -> Sam:
        from transformers import SamModel

        if folder is not None:
            need_weights(folder, self.fetch(str(folder)))
            return Sam(self, from_config(SamModel, self.native(), folder))
        if self.published_as is not None:
            raise WeightsError("no folder, and masks of random weights are noise", where="generator sam",
                               fix=f"name a folder or hub id in `weights`, such as {self.published_as}: {self.fetch('FOLDER')}")  # fmt: skip
        return self.blank()

    def blank(self) -> Sam:
        from transformers import SamModel

        return Sam(self, from_config(SamModel, self.native(), None))

    def native(self) -> Any:
        """The shape as transformers has it."""
        from transformers import SamConfig as NativeConfig

        width, size = self.prompt_width, {"image_size": self.image_size_px, "patch_size": self.patch_size_px}
        vision = {"hidden_size": self.width, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
                  "global_attn_indexes": list(self.global_layers), "window_size": self.window,
                  "output_channels": width, "num_pos_feats": width // 2}  # fmt: skip
        decoder = {"hidden_size": width, "num_hidden_layers": self.decoder_layers, "iou_head_hidden_dim": width,
                   "num_attention_heads": self.decoder_heads, "mlp_dim": self.decoder_mlp_width,
                   "layer_norm_eps": self.decoder_norm_eps}  # fmt: skip
        return NativeConfig(vision_config=vision | size, prompt_encoder_config={"hidden_size": width} | size,
                            mask_decoder_config=decoder)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Looked:
    """A picture as the mask decoder sees it: its embedding (1, C, G, G), its own height and width, and where it lies
    in SAM's square: scaled to its longer side, padded right and below."""

    embedding_1CGG: Tensor
    size: tuple[int, int]
    view: View


class Sam(nn.Module):
    """SAM behind the promise of generators, and behind one that gradients pass through."""

    def __init__(self, config: SamConfig, model: Any) -> None:
        super().__init__()
        self.config = config
        self.model = model

    @property
    def decoder(self) -> nn.Module:
        """What LISA trains of it."""
        return self.model.mask_decoder

    @property
    def network(self) -> nn.Module:
        """What LISA's checkpoint holds of it."""
        return self.model

    def save(self, folder: Path) -> None:
        """Write it as it was read, in transformers' layout."""
        self.model.save_pretrained(folder)

    def look(self, picture_HWC: NDArray[np.uint8]) -> Looked:
        """Embed a picture; without gradients where the encoder learns nothing.

        Raises:
            ConfigError: it is no array of RGB bytes.
        """
        view = _square_view(picture_HWC, self.config.image_size_px)
        encoder = self.model.vision_encoder
        weight = next(encoder.parameters())
        pixels_1CSS = square_pixels(picture_HWC, view).to(weight)
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in encoder.parameters())
        with torch.set_grad_enabled(learns):
            embedding_1CGG = encoder(pixels_1CSS).last_hidden_state
        return Looked(embedding_1CGG, picture_HWC.shape[:2], view)

    def decode(self, looked: Looked, prompts_NPC: Tensor, *, several: bool = False) -> tuple[Tensor, Tensor]:
        """Logits (N, M, L, L) in SAM's square, and how good the decoder takes each mask to be, (N, M).

        Args:
            several: three masks for each prompt, which may mean a part, a thing or a group; else one.
        """
        model = self.model
        _, dense_1CGG = model.prompt_encoder(None, None, None, None)
        logits_1NMLL, quality_1NM = model.mask_decoder(
            image_embeddings=looked.embedding_1CGG,
            image_positional_embeddings=model.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompts_NPC[None].to(dense_1CGG),
            dense_prompt_embeddings=dense_1CGG,
            multimask_output=several,
        )
        return logits_1NMLL[0], quality_1NM[0]

    def to_picture(self, logits_NMLL: Tensor, looked: Looked) -> Tensor:
        """Logits (N, M, H, W) of the picture's own pixels: enlarged to the square, unpadded, scaled back."""
        side = self.config.image_size_px
        square_NMSS = F.interpolate(logits_NMLL.float(), (side, side), mode="bilinear", align_corners=False)
        height, width = _inner(looked.size, side)
        return F.interpolate(square_NMSS[..., :height, :width], looked.size, mode="bilinear", align_corners=False)

    def place_prompt(self, looked: Looked, points: Sequence[tuple[Point, bool]] = (), box: Box | None = None) -> Tensor:
        """The prompt (1, P, C) of points, each inside or outside of what is meant, and of a box around it, all in the
        picture's own pixels.

        Raises:
            ConfigError: neither is given.
        """
        if not points and box is None:
            raise ConfigError("a prompt without a point or a box")
        view, weight = looked.view, self.model.shared_image_embedding.positional_embedding
        coords_11P2 = labels_11P = boxes_114 = None
        if points:
            coords_11P2 = weight.new_tensor([[[view.forward(point).numbers for point, _ in points]]])
            labels_11P = torch.tensor([[[int(inside) for _, inside in points]]], device=weight.device)
        if box is not None:
            boxes_114 = weight.new_tensor([[view.forward(box).numbers]])
        sparse_11PC, _ = self.model.prompt_encoder(coords_11P2, labels_11P, boxes_114, None)
        return sparse_11PC[0]

    @torch.no_grad()
    def cut(self, picture_HWC: NDArray[np.uint8], boxes: Sequence[Box], making: Making = Making()) -> list[Made]:
        """SAM's mask of each box, one for one."""
        made: list[Made] = []
        looked = self.look(picture_HWC) if boxes else None
        for box in boxes:
            if making.cancelled is not None and making.cancelled():
                raise CancelledError
            assert looked is not None
            logits_11LL, _ = self.decode(looked, self.place_prompt(looked, box=box))
            made.append(Made("mask", (self.to_picture(logits_11LL, looked)[0, 0] > 0).cpu().numpy()))
        return made

    @torch.no_grad()
    def generate(
        self, condition_BLC: Tensor, *, negative_BLC: Tensor | None = None, making: Making = Making()
    ) -> list[Made]:
        """A mask of `making.pictures` for each item of the condition; a picture given for several is looked at once.

        Raises:
            ConfigError: vectors of another width, no picture for an item, or another size than a picture's own.
            CancelledError: somebody asked to stop.
        """
        pictures = self._pictures(condition_BLC, negative_BLC, making)
        seen: dict[int, Looked] = {}
        made: list[Made] = []
        for picture_HWC, prompt_LC in zip(pictures, condition_BLC, strict=True):
            if making.cancelled is not None and making.cancelled():
                raise CancelledError
            # An array is known by its identity while the caller holds it.
            if id(picture_HWC) not in seen:
                seen[id(picture_HWC)] = self.look(picture_HWC)
            looked = seen[id(picture_HWC)]
            logits_11LL, _ = self.decode(looked, prompt_LC[None])
            made.append(Made("mask", (self.to_picture(logits_11LL, looked)[0, 0] > 0).cpu().numpy()))
            if making.progress is not None:
                making.progress(len(made), len(pictures))
        return made

    def _pictures(
        self, condition_BLC: Tensor, negative_BLC: Tensor | None, making: Making
    ) -> tuple[NDArray[np.uint8], ...]:
        """The picture of each item."""
        shape, width = tuple(condition_BLC.shape), self.config.prompt_width
        if len(shape) != 3 or shape[2] != width:
            raise ConfigError(f"a condition of shape {shape}", expected=f"(items, vectors, {width})", where="sam")
        if negative_BLC is not None:
            raise ConfigError("a negative condition for masks", expected="none: SAM has no guidance", where="sam")
        pictures = making.pictures_of(shape[0], "sam")
        for picture_HWC in pictures:
            if making.size not in (None, picture_HWC.shape[:2]):
                raise ConfigError(f"a mask of size {making.size} for a picture of {picture_HWC.shape[:2]}", where="sam",
                                  expected="none: a mask has its picture's own size")  # fmt: skip
        return pictures


def _inner(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width of a picture in SAM's square, to the nearest pixel, halves upwards."""
    scale = side / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def _square_view(picture_HWC: NDArray[np.uint8], side: int) -> View:
    if picture_HWC.dtype != np.uint8 or picture_HWC.ndim != 3 or picture_HWC.shape[2] != 3 or not picture_HWC.size:
        raise ConfigError(f"a picture of shape {picture_HWC.shape} and {picture_HWC.dtype}",
                          expected="uint8 (H, W, 3)", where="sam")  # fmt: skip
    size = picture_HWC.shape[:2]
    height, width = _inner(size, side)
    return View(side, side, width / size[1], height / size[0])


def square_pixels(picture_HWC: NDArray[np.uint8], view: View) -> Tensor:
    """What SAM's encoder reads, (1, 3, S, S): scaled, normalised, and then padded with zeros."""
    from PIL import Image as PILImage

    side = view.width_px
    height, width = _inner(picture_HWC.shape[:2], side)
    picture = PILImage.fromarray(picture_HWC, "RGB").resize((width, height), PILImage.Resampling.BILINEAR)
    pixels_CHW = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return F.pad((pixels_CHW - mean) / std, (0, side - width, 0, side - height))[None]
