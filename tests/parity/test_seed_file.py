"""SEED's tokenizer from a file by its authors' names: what a class of their structure, with their names, computes.

The authors' code needs packages that are not here, so it is written a second time below: a pre-norm tower without a bias of keys, BERT's
layers over queries that look back only, a codebook by squared distance, blocks of a vision transformer.

Shape legend: B pictures, L features, N queries or keys, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import WeightsError
from sensorium.core.weights import FileSource
from sensorium.generators.seed import SeedConfig
from sensorium.interop.locate import locate
from sensorium.interop.seed_file import seed_to_ours

HEADS, QUERIES, CODES = 4, 4, 16
CONFIG = {"narrow": SeedConfig.tiny(), "former": SeedConfig.tiny().model_copy(update={"gather": "former"})}


def heads(x_BND: Tensor) -> Tensor:
    return x_BND.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None) -> Tensor:
    scores = heads(q) @ heads(k).transpose(-1, -2) / (q.shape[-1] // HEADS) ** 0.5
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    return (scores.softmax(-1) @ heads(v)).transpose(1, 2).flatten(2)


class Named(nn.Module):
    """A module with these names."""

    def __init__(self, /, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class VitBlock(nn.Module):
    """Of the tower (`bias` alone for queries and values), or behind the codebook."""

    def __init__(self, width: int, inner: int, *, tower: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Named(qkv=nn.Linear(width, 3 * width, bias=not tower), proj=nn.Linear(width, width))
        if tower:
            self.attn.q_bias, self.attn.v_bias = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.mlp = Named(fc1=nn.Linear(width, inner), fc2=nn.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        attn: Any = self.attn
        mixed = attn.qkv(self.norm1(x))
        if hasattr(attn, "q_bias"):
            mixed = mixed + torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
        x = x + attn.proj(attend(*mixed.chunk(3, dim=-1)))
        mlp: Any = self.mlp
        return x + mlp.fc2(F.gelu(mlp.fc1(self.norm2(x))))


def bert_attention(width: int, d_key: int) -> Named:
    maps = {name: nn.Linear(d, width) for name, d in (("query", width), ("key", d_key), ("value", d_key))}
    return Named(self=Named(**maps), output=Named(dense=nn.Linear(width, width), LayerNorm=nn.LayerNorm(width, eps=1e-12)))


class BertLayer(nn.Module):
    def __init__(self, width: int, inner: int, d_key: int | None) -> None:
        super().__init__()
        self.attention = bert_attention(width, width)
        if d_key is not None:
            self.crossattention = bert_attention(width, d_key)
        self.intermediate_query = Named(dense=nn.Linear(width, inner))
        self.output_query = Named(dense=nn.Linear(inner, width), LayerNorm=nn.LayerNorm(width, eps=1e-12))

    def forward(self, x: Tensor, seen: Tensor, allowed: Tensor) -> Tensor:
        for part, keys, mask in (("attention", x, allowed), ("crossattention", seen, None)):
            block: Any = getattr(self, part, None)
            if block is not None:
                inner, keys = block.get_submodule("self"), x if part == "attention" else keys
                mixed = attend(inner.query(x), inner.key(keys), inner.value(keys), mask)
                x = block.output.LayerNorm(x + block.output.dense(mixed))
        up, down = self.intermediate_query, self.output_query
        return down.LayerNorm(x + down.dense(F.gelu(up.dense(x))))  # pyright: ignore


def former(width: int, inner: int, d_key: int) -> Named:
    layers = nn.ModuleList(BertLayer(width, inner, d_key if i % 2 == 0 else None) for i in range(2))
    embeddings = Named(LayerNorm=nn.LayerNorm(width, eps=1e-12))
    return Named(bert=Named(embeddings=embeddings, encoder=Named(layer=layers)))


def ask(former: Any, queries: Tensor, seen: Tensor) -> Tensor:
    x = former.bert.embeddings.LayerNorm(queries.expand(len(seen), -1, -1))
    allowed = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
    for layer in former.bert.encoder.layer:
        x = layer(x, seen, allowed)
    return x


class Original(nn.Module):
    """Blip2QformerQuantizer at the sizes of `SeedConfig.tiny`."""

    def __init__(self, gather: str) -> None:
        super().__init__()
        tower = nn.ModuleList(VitBlock(32, 48, tower=True) for _ in range(2))
        patches = Named(proj=nn.Conv2d(3, 32, 16, stride=16))
        self.visual_encoder: Any = Named(cls_token=nn.Parameter(torch.randn(1, 1, 32)), pos_embed=nn.Parameter(torch.randn(1, 17, 32)),
                                         patch_embed=patches, blocks=tower)  # fmt: skip
        self.ln_vision = nn.LayerNorm(32)
        self.query_tokens = nn.Parameter(torch.randn(1, QUERIES, 32))
        self.Qformer = former(32, 48, 32)
        self.encode_task_layer = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))
        self.quantize: Any = Named(embedding=nn.Embedding(CODES, 4))
        self.decode_task_layer = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 32))
        self.pos_embed, self.pos_embed_image = (nn.Parameter(torch.randn(1, QUERIES, 32)) for _ in range(2))
        self.blocks, self.blocks_image = (nn.ModuleList([VitBlock(32, 128, tower=False)]) for _ in range(2))
        if gather == "former":
            self.Reverse_Qformer, self.reverse_tokens = former(32, 48, 32), nn.Parameter(torch.randn(1, 1, 32))
            self.distill_image_proj = nn.Linear(32, 32)
        else:
            sizes = ((32, 256), (256, 128), (128, 32))
            first, second, third = (nn.Linear(a, b, bias=False) for a, b in sizes)
            self.image_down = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
            self.distill_image_proj = nn.Linear(QUERIES * 32, 32)

    def ids(self, values: Tensor) -> Tensor:
        eye = self.visual_encoder
        patches = eye.patch_embed.proj(values).flatten(2).transpose(1, 2)
        x = torch.cat([eye.cls_token.expand(len(values), -1, -1), patches], dim=1) + eye.pos_embed
        for block in eye.blocks:
            x = block(x)
        self.said = ask(self.Qformer, self.query_tokens, self.ln_vision(x))
        down = self.encode_task_layer(self.said)
        return torch.cdist(down, self.quantize.embedding.weight[None]).argmin(-1)

    def embedding(self, ids: Tensor) -> Tensor:
        x = self.decode_task_layer(self.quantize.embedding(ids)) + self.pos_embed_image
        for block in self.blocks_image:
            x = block(x)
        if hasattr(self, "image_down"):
            return self.distill_image_proj(self.image_down(x).flatten(1))
        return self.distill_image_proj(ask(self.Reverse_Qformer, self.reverse_tokens, x)[:, 0])

    def recalled(self, ids: Tensor) -> Tensor:
        x = self.decode_task_layer(self.quantize.embedding(ids)) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("gather", CONFIG)
def test_ids_and_embeddings_are_the_authors(gather: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Callable[..., None]) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    original = Original(gather).eval()
    with torch.no_grad():
        # Weights that leave no feature alike, so that ids differ.
        for parameter in original.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    torch.save(original.state_dict(), tmp_path / "seed_quantizer.pt")
    folder = locate((FileSource(path=str(tmp_path / "seed_quantizer.pt"), format="seed"),))
    ours = CONFIG[gather].build(folder)
    pixels = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        values = ours.to_values(pixels)
        torch.testing.assert_close(values[0, :, 0, 0], (pixels[0, :, 0, 0] / 255 - torch.tensor([0.48145466, 0.4578275, 0.40821073]))
                                   / torch.tensor([0.26862954, 0.26130258, 0.27577711]))  # fmt: skip
        ids = original.ids(values)
        assert torch.equal(ours.encode(pixels), ids)
        assert len(ids.unique()) > 3
        record("seed", "made", ours=ours.said(values), theirs=original.said)
        record("seed", "weights", "made", ours=ours.condition(ids)[:, 0], theirs=original.embedding(ids), of_largest=True)
        there = ours(values)
        record("seed", "made", ours=there.recalled_BND, theirs=original.recalled(ids))
        # The codebook's loss: vectors to their codes with 1, codes to their vectors with a quarter; all of it five times.
        down = original.encode_task_layer(original.said)
        near = (down - original.quantize.embedding(ids)).square().mean()
        parts, _ = ours.losses(values, torch.zeros(6, 32))
        away = 1 - F.cosine_similarity(original.recalled(ids), original.said, dim=-1).mean()
        wanted = {"codebook": 5 * 1.25 * near, "recall": 2 * away, "embedding": 0.5 * original.embedding(ids).square().mean()}
        for name, value in wanted.items():
            record("seed", "loss", ours=torch.as_tensor(parts[name]), theirs=value)


def test_each_code_knows_only_those_before_it() -> None:
    """Another last query changes what no other says."""
    tokenizer = SeedConfig.tiny().build()
    values = tokenizer.to_values(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    with torch.no_grad():
        before = tokenizer.said(values)
        tokenizer.former.queries_QD[-1] += 1.0
        after = tokenizer.said(values)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    torch.save({"query_tokens": torch.zeros(1, 2, 3)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"no quantize.embedding.weight"):
        locate((FileSource(path=str(tmp_path / "other.pt"), format="seed"),))
    with pytest.raises(WeightsError, match="mystery"):
        seed_to_ours({"quantize.embedding.weight": torch.zeros(2, 2), "mystery.weight": torch.zeros(1)})
