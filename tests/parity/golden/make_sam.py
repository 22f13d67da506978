"""Writes sam.safetensors.gz: a tiny random SAM of its authors, what it is shown and told, and what it gives.
Needs torch and a clone of github.com/facebookresearch/segment-anything (dca509f wrote the file).

    python tests/parity/golden/make_sam.py CLONE
"""

from __future__ import annotations

import gzip
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

WIDTH, SIDE = 16, 32


def tiny(clone: Path) -> Any:
    # The package's own beginning needs torchvision; its modules do not.
    package = types.ModuleType("segment_anything")
    package.__path__ = [str(clone / "segment_anything")]
    sys.modules["segment_anything"] = package
    from segment_anything.modeling import (  # pyright: ignore[reportMissingImports]
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    return Sam(
        image_encoder=ImageEncoderViT(
            depth=2, embed_dim=WIDTH, img_size=SIDE, mlp_ratio=4, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=2, patch_size=8, qkv_bias=True, use_rel_pos=True, global_attn_indexes=(1,), window_size=3,
            out_chans=WIDTH,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=WIDTH, image_embedding_size=(4, 4), input_image_size=(SIDE, SIDE), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=24, num_heads=2),
            transformer_dim=WIDTH, iou_head_depth=3, iou_head_hidden_dim=WIDTH,
        ),
    )  # fmt: skip


@torch.no_grad()
def main(clone: Path) -> None:
    torch.manual_seed(0)
    model = tiny(clone).eval()
    state = model.state_dict()
    for name, value in state.items():
        # Numbers of half precision keep the file small.
        norm = "norm" in name and "weight" in name
        value.copy_((1 + 0.2 * torch.randn_like(value) if norm else 0.3 * torch.randn_like(value)).half())
    picture = torch.randint(0, 256, (3, 20, SIDE), dtype=torch.uint8)
    prompts = torch.randn(3, 1, WIDTH)
    embedding = model.image_encoder(model.preprocess(picture.float())[None])
    _, dense = model.prompt_encoder(points=None, boxes=None, masks=None)
    tensors = {f"weights.{k}": v.half() for k, v in state.items()}
    tensors |= {"picture": picture, "prompts": prompts, "embedding": embedding}
    for several in (False, True):
        logits, quality = model.mask_decoder(embedding, model.prompt_encoder.get_dense_pe(), prompts, dense, several)
        tensors |= {f"logits.{several}": logits.clone(), f"quality.{several}": quality.clone()}
    points = torch.tensor([[[3.0, 18.0], [30.0, 0.0]]]), torch.tensor([[1, 0]])
    sparse, dense = model.prompt_encoder(points=points, boxes=torch.tensor([[2.0, 3.0, 31.0, 20.0]]), masks=None)
    logits, _ = model.mask_decoder(embedding, model.prompt_encoder.get_dense_pe(), sparse, dense, False)
    tensors["placed"] = model.postprocess_masks(logits, (20, SIDE), (20, SIDE))
    content = save({k: v.contiguous() for k, v in tensors.items()})
    Path(__file__).with_name("sam.safetensors.gz").write_bytes(gzip.compress(content, 9, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
