"""Emu's checkpoints, `Emu-pretrain.pt` and `Emu-instruct.pt`: EVA-CLIP-g, Causal Former, LLaMA and its regression head in one file.

LLaMA's shape and tokenizer are the repository's `models/llama_config` (`--llm`). The instruct file has low-rank matrices inside, by peft's
names, whose alpha is in the code. The decoder, a pipeline of diffusers, lies beside (`--with`), or is named later.

Sources: github.com/baaivision/Emu, Emu1/models/ (modeling_emu.py, modeling_llama.py, causal_former.py, modeling_t5.py, eva_vit_model.py),
Emu1/inference.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import WeightsError
from sensorium.core.weights import FolderSource, WeightSource
from sensorium.generators.pipeline_folder import pipeline_class
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.input_projectors.cformer import CFormerConfig
from sensorium.interop.emu_decoder import EMU2_GEN
from sensorium.interop.families.base import text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.originals.base import (
    Beside,
    Found,
    count,
    is_pipeline,
    last_rows,
    llm_folder,
    need,
    pipeline_folder,
    read_json,
)
from sensorium.interop.originals.lavis import eva_rules, tower_config
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, LoraConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import LORA_MARK
from sensorium.nn.pretrained import HARMLESS
from sensorium.output_projectors.regression import RegressionConfig

EYE, FORMER, LM = "visual.", "cformer.", "decoder.lm."
PEFT = f"{LM}base_model.model."
WORDS = f"{LM}model.embed_tokens.weight"
ALPHA = 16.0
"""A constant of inference.py."""
MARKS = ("[IMG]", "[/IMG]")
PICTURE = ("[PAD]", *MARKS, "<image>")
CHAT = ("[USER]", "[ASSISTANT]")
UNREAD = (f"{EYE}norm.", f"{EYE}head.", f"{FORMER}cformer.embed_tokens.")
"""What its classes have and do not run."""
FIX = "take a whole checkpoint of Emu"
T5 = (
    *((f"0.SelfAttention.{a}.weight", f"self_attention.{b}.weight") for a, b in zip("qkvo", ("q", "k", "v", "out"), strict=True)),
    *((f"1.EncDecAttention.{a}.weight", f"cross_attention.{b}.weight") for a, b in zip("qkvo", ("q", "k", "v", "out"), strict=True)),
    ("2.DenseReluDense.wi.weight", "up.weight"), ("2.DenseReluDense.wo.weight", "down.weight"),
    *((f"{i}.layer_norm.weight", f"{name}.weight") for i, name in enumerate(("norm_self", "norm_cross", "norm_ff"))),
)  # fmt: skip
"""Inside a block of T5's decoder: theirs and ours."""


class Emu:
    """EVA-CLIP-g, a Causal Former, LLaMA that foretells embeddings of pictures."""

    def fits(self, names: Collection[str]) -> bool:
        return f"{FORMER}causal_tokens" in names

    def canonical(self, name: str) -> str:
        return name.replace(PEFT, LM, 1).replace(".base_layer.", ".") if name.startswith(PEFT) else name

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = {self.canonical(k): v for k, v in found.tensors.items() if not k.endswith(HARMLESS)}
        idle = frozenset(name for name in tensors if name.startswith(UNREAD))
        tensors = {k: v for k, v in tensors.items() if k not in idle}
        ranks = [len(v) for k, v in tensors.items() if f"{LORA_MARK}A." in k]
        lora = LoraConfig(rank=ranks[0], alpha=ALPHA) if ranks else None
        return replace(found, tensors=tensors, idle=idle, lora=lora, words=words_behind(tensors, (PICTURE, (*PICTURE, *CHAT)), beside, found))

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        tensors, path = found.tensors, found.path
        need(tensors, f"{EYE}blocks.0.mlp.fc1.weight", path, FIX)
        former = _former(tensors, path)
        arch = llama_arch(found, beside, WORDS)
        decoder = StableDiffusionConfig(length=former.queries, width=arch["hidden_size"], reads_text=False, weights=decoder_source(beside))
        return ModelConfig(
            lanes={"image": LaneConfig(encoder=tower_config(tensors, EYE), projector=former, resolution=FixedResolution(fit="stretch"))},
            backbone=CausalLMConfig(arch=arch, added_tokens=tuple(found.words)),
            hands={"image": HandConfig(signals=MARKS, projector=RegressionConfig(), generator=decoder)},
            template="emu" if CHAT[0] in found.words else "emu_document",
            placeholder_token="<image>",
        )

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        return {}

    def key_map(self, names: Collection[str]) -> KeyMap:
        eye, bias = eva_rules(EYE, "ln_visual.")
        stack, mine = f"{FORMER}cformer.", "projectors.image."
        head = PROJECTOR_KEYS["emu"].behind(LM, "hands.image.")
        rules = (
            *eye,
            Rule(f"{FORMER}causal_tokens", f"{mine}queries_QD", lead=1),
            Rule(f"{stack}block.0.layer.0.SelfAttention.relative_attention_bias.weight", f"{mine}near.weight"),
            *(Rule(f"{stack}block.#.layer.{theirs}", f"{mine}layers.#.{ours}") for theirs, ours in T5),
            Rule(f"{stack}final_layer_norm.weight", f"{mine}norm.weight"),
            Rule(f"{FORMER}projection.*", f"{mine}out.*"),
            *head.rules,
            Rule(f"{LM}model.*", "backbone.lm.model.*"),
            Rule(f"{LM}lm_head.*", "backbone.lm.lm_head.*"),
        )
        return KeyMap(rules=rules, gaps=(bias,))


def words_behind(tensors: Mapping[str, Tensor], known: Sequence[tuple[str, ...]], beside: Beside, found: Found) -> dict[str, int]:
    """The control tokens behind LLaMA's words: those of the known lists that is as long as the embedding is longer than LLaMA's.

    Raises:
        WeightsError: none is.
    """
    if WORDS not in tensors:
        return {}
    rows = len(tensors[WORDS])
    before = int(read_json(llm_folder(beside, found.path) / "config.json").get("vocab_size", 0))
    tokens = next((one for one in known if len(one) == rows - before), None)
    if tokens is None:
        raise WeightsError(f"{rows} rows of the embedding over a language model of {before} words", where=str(found.path),
                           expected=" or ".join(f"{before + len(one)}" for one in known),
                           fix="name the folder of the LLaMA that it began with with --llm")  # fmt: skip
    return last_rows(tokens, rows)


def llama_arch(found: Found, beside: Beside, words: str) -> dict[str, Any]:
    """The config of the LLaMA beside, with as many words as the checkpoint has."""
    rows = len(need(found.tensors, words, found.path, FIX))
    return text_arch(read_json(llm_folder(beside, found.path) / "config.json")) | {"vocab_size": rows}


def decoder_source(beside: Beside) -> tuple[WeightSource, ...]:
    """Where the decoder lies, if it was named.

    Raises:
        WeightsError: something else was named with it, which nobody reads.
    """
    other = next((path for path in beside.more if not is_pipeline(path)), None)
    if other is not None:
        raise WeightsError("no model_index.json of a pipeline", expected="the decoder's folder, in diffusers' layout", where=str(other))
    folder = pipeline_folder(beside)
    if folder is None:
        return ()
    return (FolderSource(path=str(folder.resolve()), format="emu2_gen" if pipeline_class(folder) == EMU2_GEN else None),)


def _former(tensors: Mapping[str, Tensor], path: Path) -> CFormerConfig:
    block = f"{FORMER}cformer.block.0.layer."
    tokens = need(tensors, f"{FORMER}causal_tokens", path, FIX)
    near = need(tensors, f"{block}0.SelfAttention.relative_attention_bias.weight", path, FIX)
    inner, up = (len(need(tensors, f"{block}{name}.weight", path, FIX)) for name in ("0.SelfAttention.q", "2.DenseReluDense.wi"))
    return CFormerConfig(queries=tokens.shape[1], width=tokens.shape[2], layers=count(tensors, f"{FORMER}cformer.block."),
                         heads=near.shape[1], buckets=near.shape[0], head_dim=inner // near.shape[1], mlp_width=up)  # fmt: skip
