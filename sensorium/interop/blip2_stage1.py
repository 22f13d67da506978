"""Weights of BLIP-2's first stage: tower, Q-Former with its text half, and heads.

Two layouts: LAVIS' `blip2_pretrained.pth` (as safetensors; pickles are not read) and transformers'
`Blip2ForImageTextRetrieval`, which has neither temperature nor the head that writes. Ours are the names that the
tensors have in a model while the objective `query_pretrain` runs.

Source: github.com/salesforce/LAVIS, blip2_qformer.py, Qformer.py, eva_vit.py, for the names.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.interop.families.blip2 import ATTENTION, Blip2
from sensorium.interop.key_map import KeyMap, Rule

TOWER, FORMER, OWN = "encoders.image.tower.", "projectors.image.", "objective."
LAYER, MINE = "qformer.encoder.layer.#.", f"{OWN}text.layers.#."

# What transformers' rules for the model leave out.
HF = KeyMap(
    rules=(
        *(rule for rule in Blip2().key_map({}).rules if not rule.theirs.startswith("language_")),
        Rule("embeddings.word_embeddings.*", f"{OWN}text.words.*"),
        Rule("embeddings.position_embeddings.*", f"{OWN}text.places.*"),
        Rule(f"{LAYER}intermediate.dense.*", f"{MINE}up.*"),
        Rule(f"{LAYER}output.dense.*", f"{MINE}down.*"),
        Rule(f"{LAYER}output.LayerNorm.*", f"{MINE}norm.*"),
        Rule("vision_projection.*", f"{OWN}image_out.*"),
        Rule("text_projection.*", f"{OWN}text_out.*"),
        Rule("itm_head.*", f"{OWN}match.*"),
    )
)

BERT, BLOCK, INNER = "Qformer.bert.", "visual_encoder.blocks.#.", f"{TOWER}encoder.layers.#."
WORDS = f"{BERT}embeddings.word_embeddings.weight"
PLACES = f"{BERT}embeddings.position_embeddings.weight"
HEAD = "Qformer.cls.predictions."


def _lavis_layer() -> tuple[Rule, ...]:
    theirs, mine = f"{BERT}encoder.layer.#.", f"{FORMER}layers.#."
    attention = [(old.replace("attention.", "self.", 1), new) for old, new in ATTENTION]
    return (
        *(Rule(f"{theirs}attention.{old}", f"{mine}self_attention.{new}") for old, new in attention),
        *(Rule(f"{theirs}crossattention.{old}", f"{mine}cross_attention.{new}") for old, new in attention),
        Rule(f"{theirs}intermediate_query.dense.*", f"{mine}up.*"),
        Rule(f"{theirs}output_query.dense.*", f"{mine}down.*"),
        Rule(f"{theirs}output_query.LayerNorm.*", f"{mine}norm.*"),
        Rule(f"{theirs}intermediate.dense.*", f"{MINE}up.*"),
        Rule(f"{theirs}output.dense.*", f"{MINE}down.*"),
        Rule(f"{theirs}output.LayerNorm.*", f"{MINE}norm.*"),
    )


LAVIS = KeyMap(
    rules=(
        Rule("query_tokens", f"{FORMER}queries_QD", lead=1),
        Rule(WORDS, f"{OWN}text.words.weight"),
        Rule(PLACES, f"{OWN}text.places.weight"),
        Rule(f"{BERT}embeddings.LayerNorm.*", f"{FORMER}norm.*"),
        *_lavis_layer(),
        Rule(f"{HEAD}transform.dense.*", f"{OWN}writer.dense.*"),
        Rule(f"{HEAD}transform.LayerNorm.*", f"{OWN}writer.norm.*"),
        Rule(f"{HEAD}bias", f"{OWN}writer.bias"),
        Rule("vision_proj.*", f"{OWN}image_out.*"),
        Rule("text_proj.*", f"{OWN}text_out.*"),
        Rule("itm_head.*", f"{OWN}match.*"),
        Rule("temp", f"{OWN}temperature"),
        Rule("visual_encoder.cls_token", f"{TOWER}embeddings.class_embedding"),
        Rule("visual_encoder.pos_embed", f"{TOWER}embeddings.position_embedding"),
        Rule("visual_encoder.patch_embed.proj.*", f"{TOWER}embeddings.patch_embedding.*"),
        Rule(f"{BLOCK}norm1.*", f"{INNER}layer_norm1.*"),
        Rule(f"{BLOCK}attn.qkv.*", f"{INNER}self_attn.qkv.*"),
        Rule(f"{BLOCK}attn.proj.*", f"{INNER}self_attn.projection.*"),
        Rule(f"{BLOCK}norm2.*", f"{INNER}layer_norm2.*"),
        Rule(f"{BLOCK}mlp.*", f"{INNER}mlp.*"),
        Rule("ln_vision.*", f"{TOWER}post_layernorm.*"),
    )
)


def lavis_to_ours(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LAVIS' tensors under our names.

    Raises:
        WeightsError: a name that no rule covers, or an output layer of its own.
    """
    left = dict(theirs)
    # Numbers 0, 1, 2, ...; and the embeddings and the bias once more.
    left.pop(f"{BERT}embeddings.position_ids", None)
    for copy, original in ((f"{HEAD}decoder.weight", WORDS), (f"{HEAD}decoder.bias", f"{HEAD}bias")):
        if copy in left and not torch.equal(left.pop(copy), left[original]):
            raise WeightsError(f"{copy} differs from {original}", expected="one tensor of two names")
    for name in [n for n in left if n.endswith(".attn.q_bias")]:
        block = name.removesuffix("q_bias")
        query, value = left.pop(name), left.pop(f"{block}v_bias")
        # The tower's keys have no bias; ours has a place for it.
        left[f"{block}qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    return LAVIS.to_ours(left)


def lavis_to_theirs(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors in LAVIS' layout; what no first stage has (LLM and the map into it) is left out.

    Raises:
        WeightsError: a name that no rule covers, or a tower whose keys have a bias.
    """
    mine = {n: v for n, v in ours.items() if not n.startswith(("backbone.", f"{FORMER}out."))}
    theirs = LAVIS.to_theirs(mine)
    for name in [n for n in theirs if n.endswith(".attn.qkv.bias")]:
        query, key, value = theirs.pop(name).chunk(3)
        if bool(key.any()):
            raise WeightsError(f"{name} has a bias for keys", expected="zeros, as in EVA-CLIP")
        block = name.removesuffix("qkv.bias")
        theirs |= {f"{block}q_bias": query.clone(), f"{block}v_bias": value.clone()}
    theirs[f"{BERT}embeddings.position_ids"] = torch.arange(len(theirs[PLACES]))[None]
    theirs[f"{HEAD}decoder.weight"] = theirs[WORDS]
    theirs[f"{HEAD}decoder.bias"] = theirs[f"{HEAD}bias"]
    return theirs
