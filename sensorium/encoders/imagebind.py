"""ImageBind's eye, and its ear beside it (Girdhar et al., arXiv:2305.05665).

Source: github.com/facebookresearch/ImageBind, imagebind/models/imagebind_model.py, of `imagebind_huge` the part `vision`: CLIP's tower
with plain GELU, in whose patches two frames are one, so that a picture is two frames that are alike; `pooled` is
the normed class token in the space that all its modalities share, of unit length. A video or sound is the mean of its clips' vectors
(`imagebind_sound.py`).

Shape legend: N pictures or media, S clips of a medium, C colours, T frames of a patch, H/W pixels, F mel bands, R rows, J width of the space.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features
from sensorium.core.clips import ClipsConfig, FrameClips
from sensorium.core.errors import ConfigError
from sensorium.encoders.imagebind_sound import SoundConfig, SoundTower
from sensorium.encoders.tower import (
    OPENAI_MEAN,
    OPENAI_STD,
    FeatureChoice,
    Tower,
    TowerConfig,
    run_stretched,
    tiny_shape,
)
from sensorium.nn.pretrained import load_exact, read_folder

FRAMES = 2
SOUND = "sound."
"""In front of the names of what hears, in a folder of both."""


class ImageBindConfig(TowerConfig):
    """Defaults are those of `imagebind_huge`."""

    kind: Literal["imagebind"] = "imagebind"
    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp_width: int = 5120
    image_size_px: int = 224
    patch_size_px: int = 14
    joint: int = 1024
    """Width of the space that its modalities share."""
    feature: FeatureChoice = "pooled"
    norm_eps: float = 1e-6
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    video: FrameClips | None = None
    """How videos are taken; None: not at all."""
    audio: SoundConfig | None = None
    """What takes sound; None: nothing does."""

    @classmethod
    def tiny(cls) -> ImageBindConfig:
        return cls(**tiny_shape(joint=24))

    @property
    def out_dim(self) -> int:
        return self.joint if self.feature == "pooled" else self.width

    def clips(self) -> Mapping[str, ClipsConfig]:
        found = {"video": self.video, "audio": self.audio and self.audio.cut}
        return {kind: cut for kind, cut in found.items() if cut is not None}

    def check(self) -> None:
        super().check()
        if self.clips() and self.feature != "pooled":
            raise ConfigError(f"feature {self.feature!r} of videos or sound, which are means of clips", expected="pooled", fix="leave video and audio out")
        if self.video is not None and self.video.frames != FRAMES:
            raise ConfigError(f"clips of {self.video.frames} frames", expected=f"{FRAMES}, as a patch has", where="video.frames")
        if self.audio is not None:
            self.audio.check()

    def build(self, folder: Path | None = None) -> ImageBind:
        self.check()
        sound = None if self.audio is None else SoundTower(self.audio, self.joint)
        tower = self.build_tower(None)
        if folder is not None:
            tensors = read_folder(folder)
            load_exact(tower, {name: one for name, one in tensors.items() if not name.startswith(SOUND)}, where=str(folder))
            if sound is not None:
                load_exact(sound, {name.removeprefix(SOUND): one for name, one in tensors.items() if name.startswith(SOUND)}, where=str(folder))
        return ImageBind(self, tower, sound)

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        del folder  # Of the ear, too: `build` reads it.
        shape = CLIPVisionConfig(**self.hf_shape(), hidden_act="gelu", layer_norm_eps=self.norm_eps, projection_dim=self.joint)
        tower = CLIPVisionModelWithProjection(shape)
        patches = TwiceConv(3, self.width, self.patch_size_px)
        tower.vision_model.embeddings.patch_embedding = patches  # pyright: ignore[reportAttributeAccessIssue]
        return tower

    def run_tower(self, tower: Any, pixel_values_NCHW: Tensor) -> Any:
        output = run_stretched(tower, pixel_values_NCHW)
        return SimpleNamespace(last_hidden_state=output.last_hidden_state, pooler_output=F.normalize(output.image_embeds, dim=-1))

    def blocks(self, tower: nn.Module) -> list[nn.Module]:
        return list(cast(Any, tower).vision_model.encoder.layers)


class ImageBind(Tower):
    """Pictures as any tower; videos and sound by their clips."""

    def __init__(self, config: ImageBindConfig, tower: nn.Module, sound: SoundTower | None) -> None:
        super().__init__(config, tower)
        self.sound = sound
        self.in_pieces = bool(config.clips())
        """Whether what of it is called, and how often, depends on the media of a batch."""

    def forward(self, pixels_NCHW: Tensor, kind: str = "image") -> Features:
        """(N, 3, H, W) uint8, of videos (N, S, T, 3, H, W), of sound (N, S, F, R) of mel bands -> the chosen features.

        Args:
            kind: of media.
        """
        if kind == "image":
            return super().forward(pixels_NCHW)
        clips = pixels_NCHW.flatten(0, 1)
        if kind == "video":
            vectors_XJ = self.features(self.normalise(clips.flatten(0, 1)).unflatten(0, clips.shape[:2]).flatten(1, 2)).values_ND
        else:
            vectors_XJ = cast(SoundTower, self.sound)(clips)
        means_NJ = vectors_XJ.unflatten(0, pixels_NCHW.shape[:2]).mean(dim=1)
        return Features(means_NJ, (self.config.grid(),) * len(means_NJ))


class TwiceConv(nn.Conv3d):
    """Patches of two frames, or of a picture that is both."""

    def __init__(self, colours: int, width: int, patch_px: int) -> None:
        size = (FRAMES, patch_px, patch_px)
        super().__init__(colours, width, size, stride=size, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W), or (N, T * C, H, W) of true frames -> (N, width, rows, columns)."""
        if input.shape[1] == self.in_channels:
            frames_NCTHW = input[:, :, None].expand(-1, -1, FRAMES, -1, -1)
        else:
            frames_NCTHW = input.unflatten(1, (FRAMES, self.in_channels)).transpose(1, 2)
        return super().forward(frames_NCTHW)[:, :, 0]
