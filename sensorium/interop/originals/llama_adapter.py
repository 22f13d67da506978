"""LLaMA-Adapter's checkpoints: prompts and gates; in its second version a visual path, norms and biases, too.

They lie over LLaMA and, where there is a visual path, CLIP ViT-L/14 (both in transformers' layout). Gates are
stored of all layers, prompts of the last ones: the others' gates are kept and read by nobody. Names and rows are
those of Meta's LLaMA. How long a prompt of the first version is, is in no tensor: ten, as in its code.

Gates of one number a head are read through tanh, as they were trained. The first version's own script for answering
(`llama/model.py`) leaves the tanh out, which its authors call unclean (issue 39). Low-rank matrices beside prompts
(LORA-BIAS-7B) have no place here.

Source: github.com/OpenGVLab/LLaMA-Adapter, alpaca_finetuning_v1 (model, extract_adapter_from_checkpoint.py),
llama_adapter_v2_multimodal7b (llama/, util/extract_adapter_from_checkpoint.py, util/misc.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.llama_steps import PROMPT_NAME
from sensorium.core.errors import WeightsError
from sensorium.encoders.clip import ClipConfig
from sensorium.fusion.splice import SpliceConfig
from sensorium.fusion.visual_prompt import VisualPromptConfig
from sensorium.input_projectors.query_vit import QueryVitConfig
from sensorium.interop.families.base import text_arch
from sensorium.interop.key_map import KeyMap, Rule, Split
from sensorium.interop.originals.base import Beside, Found, count, llm_folder, need, read_json
from sensorium.interop.originals.clip_beside import clip_config, clip_folder
from sensorium.interop.tower_files import OPEN_CLIP
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import AdaptionPromptConfig, BiasNormConfig, LaneConfig, ModelConfig

KIND = "llama_adapter"
QUERY, EYE, LAYER = "adapter_query.weight", "clip.visual.", "llama.layers."
LENGTH, HEADS, CLIP_HEAD = 10, 16, 64
"""Vectors of a prompt, heads of a visual block, width of a head of CLIP: constants of the code."""
LAYERS = "backbone.lm.model.layers."
LLAMA = (("attention.wv", "self_attn.v_proj"), ("attention.wo", "self_attn.o_proj"),
         ("feed_forward.w1", "mlp.gate_proj"), ("feed_forward.w2", "mlp.down_proj"), ("feed_forward.w3", "mlp.up_proj"),
         ("attention_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"))  # fmt: skip
PATH = (("clip_proj", "enter"), ("clip_proj_norm", "norm_in"), ("visual_proj", "out"), ("visual_proj_norm", "norm_out"),
        *((f"visual_blocks.#.{a}", f"blocks.#.{b}") for a, b in (
            ("norm1", "norm_1"), ("attn.proj", "attention.out"), ("norm2", "norm_2"), ("mlp.fc1", "up"), ("mlp.fc2", "down"))))  # fmt: skip


class LlamaAdapter:
    """LLaMA with adaption prompts; with CLIP and queries that see it, where the checkpoint has them."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}

    def fits(self, names: Collection[str]) -> bool:
        return any(self.canonical(name) == QUERY for name in names)

    def canonical(self, name: str) -> str:
        name = name.removeprefix("module.")
        if name.startswith("llma."):
            return name.replace("llma.", "llama.", 1)  # As training wrote it for a while.
        return f"llama.{name}" if name.startswith(("layers.", "norm.", "tok_embeddings.", "output.")) else name

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = {self.canonical(k): v for k, v in found.tensors.items()}
        self.config = _sizes(tensors, found) if tensors else found.config
        idle = frozenset(self._idle(tensors))
        kept = {k: v for k, v in tensors.items() if k not in idle}
        return replace(found, config=self.config, tensors=kept, idle=idle)

    def _idle(self, names: Collection[str]) -> Iterator[str]:
        """Gates of layers without a prompt, and CLIP's half for texts."""
        for name in names:
            without = name.startswith(LAYER) and name.endswith(".attention.gate") and int(name.split(".")[2]) < self._first()
            if without or (name.startswith("clip.") and not name.startswith(EYE)):
                yield name

    def _first(self) -> int:
        return self.config["n_layers"] - self.config["adapter_layers"]

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        sizes, tensors = self.config, found.tensors
        arch = text_arch(read_json(llm_folder(beside, found.path) / "config.json"))
        said = (arch.get("model_type"), arch.get("num_hidden_layers"), arch.get("num_attention_heads"))
        mine = ("llama", sizes["n_layers"], sizes["n_heads"] or said[2])
        if said != mine:
            raise WeightsError("a language model of {}, {} layers and {} heads".format(*said),
                               expected="{}, {} and {}".format(*mine), where=str(beside.llm))  # fmt: skip
        biases = any(name.startswith(LAYER) and name.endswith(".bias") for name in tensors)
        prompts = AdaptionPromptConfig(
            layers=sizes["adapter_layers"], length=sizes["adapter_len"],
            gate="heads" if sizes["n_heads"] else "layer", tuning=BiasNormConfig() if biases else None,
        )  # fmt: skip
        sees = "visual_query.weight" in tensors
        return ModelConfig(
            lanes={"image": _lane(found, beside)} if sees else {}, backbone=CausalLMConfig(arch=arch), adapter=prompts,
            fusion=VisualPromptConfig() if sees else SpliceConfig(), template="alpaca",
        )  # fmt: skip

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        folders = {"backbone": llm_folder(beside, found.path)}
        if "visual_query.weight" in found.tensors and not _eye_inside(found.tensors):
            folders["encoders.image"] = clip_folder(found, beside)
        return folders

    def key_map(self, names: Collection[str]) -> KeyMap:
        layer, mine, heads = f"{LAYER}#.", f"{LAYERS}#.", self.config["n_heads"]
        block, path = "visual_blocks.#.attn.qkv.", "projectors.image."
        prompts = (f"{LAYERS}{i}.self_attn.{PROMPT_NAME}.vectors" for i in range(self._first(), self.config["n_layers"]))
        tower = "encoders.image.tower."
        return KeyMap(
            rules=(
                Rule(f"{layer}attention.wq.*", f"{mine}self_attn.q_proj.*", pairs=heads),
                Rule(f"{layer}attention.wk.*", f"{mine}self_attn.k_proj.*", pairs=heads),
                *(Rule(f"{layer}{a}.*", f"{mine}{b}.*") for a, b in LLAMA),
                Rule(f"{layer}attention.gate", f"{mine}self_attn.{PROMPT_NAME}.gate",
                     lead=int(heads > 0), trail=2 * (heads > 0)),
                Rule("llama.norm.*", "backbone.lm.model.norm.*"),
                Rule("llama.tok_embeddings.*", "backbone.lm.model.embed_tokens.*"),
                Rule("llama.output.*", "backbone.lm.lm_head.*"),
                Rule("visual_query.weight", f"{path}queries_QD"),
                *(Rule(f"{a}.*", f"{path}{b}.*") for a, b in PATH),
                *(replace(r, theirs=f"clip.{r.theirs}", ours=tower + r.ours)
                  for r in OPEN_CLIP.rules if r.theirs.startswith("visual.")),
            ),
            splits=(
                Split(QUERY, tuple(prompts)),
                *(Split(f"{block}{kind}", tuple(f"{path}blocks.#.attention.{p}.{kind}" for p in "qkv"))
                  for kind in ("weight", "bias")),
                *(replace(s, theirs=f"clip.{s.theirs}", ours=tuple(tower + name for name in s.ours))
                  for s in OPEN_CLIP.splits if s.theirs.startswith("visual.")),
            ),
        )  # fmt: skip


def _sizes(tensors: Mapping[str, Tensor], found: Found) -> dict[str, Any]:
    """What Meta's params.json and the code's arguments say, as far as the key map needs it.

    Raises:
        WeightsError: the prompts are of no whole number of layers, or of more than there are gates.
    """
    layers, rows = count(tensors, LAYER), len(tensors[QUERY])
    length = len(tensors["visual_query.weight"]) if "visual_query.weight" in tensors else found.config.get("adapter_len", LENGTH)
    if rows % length or rows // length > layers:
        raise WeightsError(f"{QUERY} has {rows} rows, and {layers} layers have gates",
                           expected=f"{length} for each of the last layers", where=str(found.path))  # fmt: skip
    gate = need(tensors, f"{LAYER}{layers - 1}.attention.gate", found.path, "take a checkpoint with gates")
    return {"model_type": KIND, "n_layers": layers, "n_heads": gate.shape[1] if gate.ndim == 4 else 0,
            "adapter_len": length, "adapter_layers": rows // length}  # fmt: skip


def _eye_inside(names: Collection[str]) -> bool:
    return any(name.startswith(EYE) for name in names)


def _lane(found: Found, beside: Beside) -> LaneConfig:
    tensors, fix = found.tensors, "take a checkpoint with its whole visual path"
    queries = tensors["visual_query.weight"]
    inner = need(tensors, "visual_blocks.0.mlp.fc1.weight", found.path, fix)
    projector = QueryVitConfig(
        queries=len(queries), width=queries.shape[1], layers=count(tensors, "visual_blocks."), heads=HEADS,
        mlp_width=len(inner),
    )  # fmt: skip
    seen = {"feature": "cls_patch", "norm_tokens": True}
    if _eye_inside(tensors):
        encoder = _eye(tensors).model_copy(update=seen)
    else:
        clip, joint = clip_config(clip_folder(found, beside))
        encoder = clip.model_copy(update=seen | {"token_projection": joint})
    return LaneConfig(encoder=encoder, projector=projector, resolution=FixedResolution(fit="crop"))


def _eye(tensors: Mapping[str, Tensor]) -> ClipConfig:
    """CLIP's sizes, as OpenAI's own code reads them off its tensors."""
    patches, places = tensors[f"{EYE}conv1.weight"], tensors[f"{EYE}positional_embedding"]
    width, side = patches.shape[0], round((len(places) - 1) ** 0.5)
    return ClipConfig(
        width=width, layers=count(tensors, f"{EYE}transformer.resblocks."), heads=width // CLIP_HEAD,
        mlp_width=len(tensors[f"{EYE}transformer.resblocks.0.mlp.c_fc.weight"]),
        image_size_px=side * patches.shape[-1], patch_size_px=patches.shape[-1],
        token_projection=tensors[f"{EYE}proj"].shape[1],
    )  # fmt: skip
