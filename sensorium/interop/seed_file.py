"""SEED's tokenizer in its authors' file (`seed_quantizer.pt`), by the names of `generators.seed.SeedTokenizer`.

Its tower and its Q-Formers have LAVIS' names. Source of names: github.com/AILab-CVC/SEED, MultiModalLLM/src/tokenizer/qformer/
qformer_quantizer.py and vit.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.interop.converted import write_folder
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.originals.lavis import BERT, EYE, Lavis
from sensorium.interop.torch_file import read_checkpoint

REVERSE = "Reverse_Qformer."
CODES = "quantize.embedding.weight"
OURS = {"encoders.image.tower.": "tower.", "projectors.image.": "former."}
"""What the map of LAVIS' models calls ours -> what the tokenizer does."""


def _blocks(places: str, theirs: str, ours: str) -> tuple[Rule, ...]:
    layer, mine = f"{theirs}.#.", f"{ours}.layers.#."
    pairs = (("norm1.*", "norm1.*"), ("norm2.*", "norm2.*"), ("attn.qkv.weight", "self_attn.in_proj_weight"),
             ("attn.qkv.bias", "self_attn.in_proj_bias"), ("attn.proj.*", "self_attn.out_proj.*"),
             ("mlp.fc1.*", "linear1.*"), ("mlp.fc2.*", "linear2.*"))  # fmt: skip
    return (Rule(places, f"{ours}.places_ND", lead=1), *(Rule(layer + a, mine + b) for a, b in pairs))


SEED = KeyMap(
    rules=(
        Rule(CODES, "quantise.codebook_KD"),
        Rule("encode_task_layer.#.*", "down.#.*"),
        Rule("decode_task_layer.#.*", "up.#.*"),
        *_blocks("pos_embed", "blocks", "recall"),
        *_blocks("pos_embed_image", "blocks_image", "draw"),
        Rule("image_down.#.weight", "reverse.#.weight"),
        Rule("distill_image_proj.*", "out.*"),
    )
)
"""All but the tower and the Q-Formers."""


def seed_to_ours(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' tensors under our names.

    Raises:
        WeightsError: a name that is none of theirs.
    """
    said = {name: value for name, value in theirs.items() if not name.endswith("position_ids")}
    looks = {name: value for name, value in said.items() if name.startswith((EYE, "ln_vision.", "query_tokens", BERT))}
    back = {name.replace(REVERSE, "Qformer.").replace("reverse_tokens", "query_tokens"): value
            for name, value in said.items() if name.startswith((REVERSE, "reverse_tokens"))}  # fmt: skip
    rest = {name: value for name, value in said.items() if name not in looks and not name.startswith((REVERSE, "reverse_tokens"))}
    ours = SEED.to_ours(rest)
    for name, value in _lavis(looks).items():
        ours[next(name.replace(a, b) for a, b in OURS.items() if name.startswith(a))] = value
    ours |= {name.replace("projectors.image.", "reverse."): value for name, value in _lavis(back).items()}
    # What a codebook keeps while it learns, of one that has learnt.
    codes_KD = ours["quantise.codebook_KD"]
    return ours | {"quantise.seen_K": torch.zeros(len(codes_KD)), "quantise.sum_KD": torch.zeros_like(codes_KD),
                   "quantise.begun": torch.ones((), dtype=torch.bool)}  # fmt: skip


def _lavis(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return Lavis().key_map(tensors).to_ours(tensors) if tensors else {}


def convert_seed(file: Path, folder: Path) -> None:
    """Write SEED's tokenizer by our names.

    Raises:
        WeightsError: the file is damaged, needs code, or holds something else or no tower.
    """
    tensors = read_checkpoint(file)
    for name in (CODES, f"{EYE}cls_token"):
        if name not in tensors:
            raise WeightsError(f"no {name}", expected="SEED's tokenizer with its tower", where=str(file))
    write_folder(folder, seed_to_ours(tensors))
