"""Writes open_clip.safetensors.gz: a tiny random CLIP of open_clip, what it is shown and told, and what it gives.
Needs torch and open_clip_torch (3.3.0 wrote the file).

    python tests/parity/golden/make_open_clip.py
"""

from __future__ import annotations

import gzip
from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save

# Heads as wide as bigG's are not: 16 = 2 x 8.
VISION = CLIPVisionCfg(layers=3, width=16, head_width=8, mlp_ratio=1.5, patch_size=4, image_size=12)
TEXT = CLIPTextCfg(context_length=7, vocab_size=20, width=16, heads=2, layers=2, mlp_ratio=1.5)


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    model = CLIP(8, VISION, TEXT, quick_gelu=False).eval()
    for parameter in model.parameters():
        # Numbers of half precision keep the file small.
        parameter.copy_((parameter + torch.randn_like(parameter) * 0.2).half())
    pixels, ids = torch.randn(2, 3, 12, 12), torch.tensor([[1, 5, 6, 19, 0, 0, 0], [1, 7, 8, 9, 10, 11, 19]])
    last: list[torch.Tensor] = []
    model.visual.transformer.register_forward_hook(lambda m, a, out: last.append(out))
    tensors = {f"weights.{k}": v.half() for k, v in model.state_dict().items()}
    tensors |= {"pixels": pixels, "ids": ids, "image": model.encode_image(pixels), "text": model.encode_text(ids),
                "tokens": last[0]}  # fmt: skip
    content = save({k: v.contiguous() for k, v in tensors.items()})
    Path(__file__).with_name("open_clip.safetensors.gz").write_bytes(gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    main()
