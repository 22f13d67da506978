"""Writes `imagebind.json.gz`: what ImageBind makes of pictures, videos and sounds, and of their files before.

    python tests/parity/golden/make_imagebind.py IMAGEBIND PYTORCHVIDEO TORCHAUDIO

with clones of github.com/facebookresearch/ImageBind (53680b0 wrote the file) and pytorchvideo (f3142bb), and the package torchaudio (2.11, whose
wheel may be unpacked), where torch, einops and regex are installed. Weights and media are hashed counters, so that the file
holds none. Stand-ins: files, which are handed over decoded, of torchvision the two transforms that are asked for, what reads text, and of timm
what begins weights and leaves layers out in training.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from make_qwen_vl import noise, weights  # noqa: E402

WIDTH, JOINT = 16, 12
VIDEOS = {"wide": (23, 40, 61, 10.0), "tall": (9, 50, 37, 2.9), "one": (1, 30, 30, 1.0), "whole": (5, 224, 300, 2.0), "lost": (3, 61, 56, 2.0)}
"""Frames, height, width, frames of a second."""
SOUNDS = {"long": 112_345, "two": 32_000, "short": 17_777}
"""Samples, 16,000 a second."""
MEL, PIXELS = (16, 12), 112
"""Every so many bands and rows of sound, and pixels of frames, are written down."""
OTHERS: dict[str, Any] = {f"{kind}_{name}": value for kind in ("text", "depth", "thermal", "imu")
                          for name, value in (("embed_dim", 8), ("num_blocks", 1), ("num_heads", 1))}  # fmt: skip


def frames(name: str) -> Tensor:
    """(F, H, W, 3) uint8."""
    count, height, width, _ = VIDEOS[name]
    return ((noise((count, height, width, 3), len(name)) + 1) * 127).clamp(0, 255).to(torch.uint8)


def samples(name: str) -> Tensor:
    """Noise that swells, over a tone."""
    count = SOUNDS[name]
    times = torch.arange(count) / 16_000
    return 0.02 * noise((count,), count) * times + 0.1 * torch.sin(2 * torch.pi * 440 * times)


def pictures() -> Tensor:
    return ((noise((2, 3, 224, 224), 7) + 1) * 127).clamp(0, 255).to(torch.uint8)


def module(name: str, file: Path | None = None, **named: Any) -> Any:
    """A package, or the module of one file."""
    if file is None:
        made = types.ModuleType(name)
        made.__path__ = []
        sys.modules[name] = made
    else:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules[name] = made
        spec.loader.exec_module(made)
    for key, value in named.items():
        setattr(made, key, value)
    return made


def stand_ins(video: Path, audio: Path) -> None:
    """What ImageBind's `data.py` imports."""
    for name in ("pytorchvideo", "pytorchvideo.data", "pytorchvideo.data.utils", "pytorchvideo.data.video", "torchvision", "torchaudio.compliance"):
        module(name)
    sys.modules["pytorchvideo.data.utils"].thwc_to_cthw = lambda data: data.permute(3, 0, 1, 2)  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["pytorchvideo.data.video"].Video = object  # pyright: ignore[reportAttributeAccessIssue]
    module("pkg_resources", resource_filename=lambda *_: "")
    module("timm")
    module("timm.layers", trunc_normal_=torch.nn.init.trunc_normal_, DropPath=lambda share: torch.nn.Identity())
    module("ftfy")
    module("iopath")
    module("iopath.common")
    module("iopath.common.file_io", g_pathmgr=None)
    module("torchaudio", load=lambda name: (samples(name)[None].clone(), 16_000))
    sys.modules["torchaudio"].compliance = module("torchaudio.compliance")  # pyright: ignore[reportAttributeAccessIssue]
    kaldi = module("torchaudio.compliance.kaldi", audio / "compliance" / "kaldi.py")
    sys.modules["torchaudio.compliance"].kaldi = kaldi  # pyright: ignore[reportAttributeAccessIssue]

    class Reader:
        def __init__(self, uri: str, **_: Any) -> None:
            self.name = uri

        def __len__(self) -> int:
            return VIDEOS[self.name][0]

        def get_avg_fps(self) -> float:
            return VIDEOS[self.name][3]

        def get_batch(self, numbers: list[int]) -> Tensor:
            return frames(self.name)[numbers]

    module("decord", VideoReader=Reader, cpu=lambda _: None, bridge=types.SimpleNamespace(set_bridge=lambda _: None))
    decoded = module("pytorchvideo.data.encoded_video_decord", video / "pytorchvideo" / "data" / "encoded_video_decord.py")
    opened = types.SimpleNamespace(from_path=lambda path, decoder, decode_audio, sample_rate: decoded.EncodedVideoDecord(path, decode_audio=decode_audio))
    module("pytorchvideo.data.encoded_video", EncodedVideo=opened)
    module("pytorchvideo.data.clip_sampling", video / "pytorchvideo" / "data" / "clip_sampling.py")
    functional = module("pytorchvideo.transforms.functional", video / "pytorchvideo" / "transforms" / "functional.py")
    sys.modules["pytorchvideo"].transforms = module(  # pyright: ignore[reportAttributeAccessIssue]
        "pytorchvideo.transforms", ShortSideScale=lambda size: lambda x: functional.short_side_scale(x, size),
        UniformTemporalSubsample=lambda num_samples: lambda x: functional.uniform_temporal_subsample(x, num_samples),
    )  # fmt: skip

    def composed(steps: list[Any]) -> Any:
        def run(x: Tensor) -> Tensor:
            for step in steps:
                x = step(x)
            return x

        return run

    module("torchvision.transforms", Compose=composed, Normalize=lambda mean, std: lambda x: (x - mean) / std)
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # pyright: ignore[reportAttributeAccessIssue]


@torch.no_grad()
def main() -> None:
    imagebind, video, audio = map(Path, sys.argv[1:])
    stand_ins(video, audio)
    sys.path.insert(0, str(imagebind))
    from imagebind import data  # pyright: ignore[reportMissingImports]
    from imagebind.models.imagebind_model import (  # pyright: ignore[reportMissingImports]
        ImageBindModel,
    )

    model: Any = ImageBindModel(
        kernel_size=(2, 56, 56), out_embed_dim=JOINT, vision_embed_dim=WIDTH, vision_num_blocks=2, vision_num_heads=4,
        audio_embed_dim=WIDTH, audio_num_blocks=2, audio_num_heads=2, **OTHERS,
    ).eval()  # fmt: skip
    shapes = {name: list(value.shape) for name, value in model.state_dict().items() if ".vision." in name or ".audio." in name}
    scale = shapes.pop("modality_postprocessors.audio.1.log_logit_scale")
    assert scale == []
    model.load_state_dict(weights(shapes), strict=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))
    made: dict[str, Any] = {"shapes": shapes, "pictures": model({"vision": (pictures() / 255 - mean) / std})["vision"].tolist()}
    for name in VIDEOS:
        clips = data.load_and_transform_video_data([name], "cpu")
        made[name] = {"shape": list(clips.shape), "clips": _short(clips[..., ::PIXELS, ::PIXELS]), "vector": _short(model({"vision": clips})["vision"][0], 7)}
    for name in SOUNDS:
        clips = data.load_and_transform_audio_data([name], "cpu")
        made[name] = {"shape": list(clips.shape), "clips": _short(clips[..., :: MEL[0], :: MEL[1]]), "vector": _short(model({"audio": clips})["audio"][0], 6)}
    (HERE / "imagebind.json.gz").write_bytes(gzip.compress((json.dumps(made) + "\n").encode(), 9, mtime=0))


def _short(values: Tensor, places: int = 4) -> list[float]:
    return [round(value, places) for value in values.flatten().tolist()]


if __name__ == "__main__":
    main()
