"""Writes eva2.safetensors.gz: tiny random towers of timm's `Eva`, what they are shown and what they
give before their last norm. Needs torch and timm (1.0.31 wrote the file).

    python tests/parity/golden/make_eva2.py
"""

from __future__ import annotations

import gzip
from pathlib import Path

import torch
from safetensors.torch import save
from timm.models.eva import Eva

SHAPE = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
# As in timm's eva02_enormous_patch14_clip_224 and eva02_large_patch14_clip_336.
TOWERS = {
    "e": {"img_size": 12, "mlp_ratio": 1.5, "use_post_norm": True},
    "l": {"img_size": 20, "mlp_ratio": 1.5, "qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True,
          "scale_attn_inner": True, "use_rot_pos_emb": True, "ref_feat_shape": (3, 3)},
}  # fmt: skip


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, changes in TOWERS.items():
        tower = Eva(**SHAPE, **changes, global_pool="token").eval()
        for parameter in tower.parameters():
            # Numbers of half precision keep the file small.
            parameter.copy_((parameter + torch.randn_like(parameter) * 0.2).half())
        pixels = torch.randn(2, 3, changes["img_size"], changes["img_size"])
        last: list[torch.Tensor] = []
        tower.blocks[-1].register_forward_hook(lambda m, a, out, last=last: last.append(out))
        tower.forward_features(pixels)
        tensors |= {f"{name}.weights.{key}": value for key, value in tower.state_dict().items()}
        tensors |= {f"{name}.pixels": pixels, f"{name}.tokens": last[0]}
    content = save({key: value.contiguous().half() if ".weights." in key else value.contiguous() for key, value in tensors.items()})
    Path(__file__).with_name("eva2.safetensors.gz").write_bytes(gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    main()
