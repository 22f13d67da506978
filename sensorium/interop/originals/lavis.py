"""LAVIS' checkpoints of BLIP-2 and InstructBLIP, and MiniGPT-4's, whose code grew out of LAVIS.

They hold what learnt: `query_tokens`, `Qformer`, `ln_vision`, the map to the language model (MiniGPT-4:
that map alone). The tower is `eva_vit_g.pth`, the language model transformers' own. Numbers of heads
are in the code, not in the tensors: 16 in EVA-CLIP-g, 12 in the Q-Former, which is a BERT-base.

Sources: github.com/salesforce/LAVIS, models/blip2_models/, models/eva_vit.py;
github.com/Vision-CAIR/MiniGPT-4, minigpt4/models/.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.encoders.blip2_vit import Blip2VitConfig
from sensorium.input_projectors.qformer import QFormerConfig
from sensorium.interop.families.base import text_arch
from sensorium.interop.families.blip2 import ATTENTION
from sensorium.interop.key_map import Gap, KeyMap, Rule
from sensorium.interop.originals.base import Beside, Found, count, llm_folder, need, read_json
from sensorium.interop.torch_file import read_checkpoint
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.text.chat import TemplateName

HEADS, QFORMER_HEADS, LAYERS = 16, 12, 39
EYE, BERT = "visual_encoder.", "Qformer.bert."
# Map to the language model -> the language model beside it; the first has precedence.
MAPS = {"llama_proj": "llama_model", "llm_proj": "llm_model", "opt_proj": "opt_model", "t5_proj": "t5_model"}
# Of the EVA-CLIP-g that LAVIS starts from, nothing behind the last block it runs.
UNUSED = ("norm.", "fc_norm.", "head.")


class Lavis:
    """EVA-CLIP-g, a Q-Former that may read, OPT, LLaMA or T5."""

    def fits(self, names: Collection[str]) -> bool:
        return any(name.startswith((BERT, *(f"{m}." for m in MAPS))) for name in names)

    def canonical(self, name: str) -> str:
        return name

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors: dict[str, Tensor] = {}
        if beside.tower is not None:
            tensors |= {EYE + k: v for k, v in read_checkpoint(beside.tower).items() if of_eva_vit_g(k)}
        before = [read_checkpoint(path) for path in beside.more]
        for part in (*before, found.tensors):
            tensors |= {self.canonical(k): v for k, v in part.items()}
        chosen = map_of(found.tensors) or map_of(tensors)
        others = tuple(f"{m}." for m in MAPS if m != chosen)
        kept = {k: v for k, v in tensors.items()
                if not k.startswith(others) and not k.endswith(".position_ids")}  # fmt: skip
        return replace(found, tensors=kept)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        tensors, path = found.tensors, found.path
        if "visual_encoder.blocks.0.mlp.fc1.weight" not in tensors:
            need(tensors, "visual_encoder.blocks.0.mlp.fc1.weight", path,
                 "name the file of EVA-CLIP-g, eva_vit_g.pth, with --tower")  # fmt: skip
        arch = text_arch(read_json(llm_folder(beside, path) / "config.json"))
        reads_first = arch.get("model_type") == "t5"
        lane = LaneConfig(
            encoder=tower_config(tensors), projector=_qformer(tensors, path),
            resolution=FixedResolution(fit="stretch"),
        )  # fmt: skip
        return ModelConfig(
            lanes={"image": lane},
            backbone=(Seq2SeqLMConfig if reads_first else CausalLMConfig)(arch=arch),
            template=_template(map_of(tensors), reads_first),
        )

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        return {"backbone": llm_folder(beside, found.path)}

    def key_map(self, names: Collection[str]) -> KeyMap:
        last = map_of(names) or "llm_proj"
        layer, mine = f"{BERT}encoder.layer.#.", "projectors.image.layers.#."
        eye, bias = eva_rules(EYE, "ln_vision.")
        rules = [
            *eye,
            Rule("query_tokens", "projectors.image.queries_QD", lead=1),
            Rule(f"{BERT}embeddings.LayerNorm.*", "projectors.image.norm.*"),
            Rule(f"{BERT}embeddings.word_embeddings.*", "projectors.image.words.*"),
            Rule(f"{BERT}embeddings.position_embeddings.*", "projectors.image.places.*"),
        ]
        for theirs, ours in ATTENTION:
            # What transformers moved out of `self`: only the three maps in front.
            inner = theirs.replace("attention.", "self.", 1)
            rules.append(Rule(f"{layer}attention.{inner}", f"{mine}self_attention.{ours}"))
            rules.append(Rule(f"{layer}crossattention.{inner}", f"{mine}cross_attention.{ours}"))
        for kind, owner in (("_query", mine), ("", f"{mine}text.")):
            rules += [
                Rule(f"{layer}intermediate{kind}.dense.*", f"{owner}up.*"),
                Rule(f"{layer}output{kind}.dense.*", f"{owner}down.*"),
                Rule(f"{layer}output{kind}.LayerNorm.*", f"{owner}norm.*"),
            ]
        rules += [Rule(f"{last}.*", "projectors.image.out.*"), Rule(f"{MAPS[last]}.*", "backbone.lm.*")]
        return KeyMap(rules=tuple(rules), gaps=(bias,))


def eva_rules(eye: str, norm: str) -> tuple[tuple[Rule, ...], Gap]:
    """The map of EVA-CLIP-g, whose names stand behind a prefix, and of the norm behind it."""
    block, tower = f"{eye}blocks.#.", "encoders.image.tower.encoder.layers.#."
    embeddings = "encoders.image.tower.embeddings."
    rules = (
        Rule(f"{eye}cls_token", f"{embeddings}class_embedding"),
        Rule(f"{eye}pos_embed", f"{embeddings}position_embedding"),
        Rule(f"{eye}patch_embed.proj.*", f"{embeddings}patch_embedding.*"),
        Rule(f"{block}norm1.*", f"{tower}layer_norm1.*"),
        Rule(f"{block}norm2.*", f"{tower}layer_norm2.*"),
        Rule(f"{block}attn.qkv.weight", f"{tower}self_attn.qkv.weight"),
        Rule(f"{block}attn.proj.*", f"{tower}self_attn.projection.*"),
        Rule(f"{block}mlp.*", f"{tower}mlp.*"),
        Rule(f"{norm}*", "encoders.image.tower.post_layernorm.*"),
    )
    return rules, Gap(f"{block}attn.q_bias", f"{block}attn.v_bias", f"{tower}self_attn.qkv.bias")


def map_of(names: Collection[str]) -> str | None:
    """The map to the language model that a checkpoint holds."""
    return next((m for m in MAPS if f"{m}.weight" in names), None)


def of_eva_vit_g(name: str) -> bool:
    """Whether LAVIS runs this tensor of EVA-CLIP-g's file, which has one block more."""
    number = name.removeprefix("blocks.").partition(".")[0]
    return not name.startswith(UNUSED) and not (name.startswith("blocks.") and int(number) >= LAYERS)


def tower_config(tensors: Mapping[str, Tensor], eye: str = EYE) -> Blip2VitConfig:
    """The tower that tensors by LAVIS' names, behind a prefix, are of."""
    patches, places = tensors[f"{eye}patch_embed.proj.weight"], tensors[f"{eye}pos_embed"]
    side = round((places.shape[1] - 1) ** 0.5)
    return Blip2VitConfig(
        width=patches.shape[0], layers=count(tensors, f"{eye}blocks."), heads=HEADS,
        mlp_width=len(tensors[f"{eye}blocks.0.mlp.fc1.weight"]),
        image_size_px=side * patches.shape[-1], patch_size_px=patches.shape[-1],
    )  # fmt: skip


def _qformer(tensors: dict[str, Tensor], path: Path) -> QFormerConfig:
    fix = "name the BLIP-2 checkpoint that this one was trained on with --with"
    queries = need(tensors, "query_tokens", path, fix)
    up = need(tensors, f"{BERT}encoder.layer.0.intermediate_query.dense.weight", path, fix)
    words = tensors.get(f"{BERT}embeddings.word_embeddings.weight")
    places = tensors.get(f"{BERT}embeddings.position_embeddings.weight")
    former = QFormerConfig(
        queries=queries.shape[1], width=queries.shape[2], heads=QFORMER_HEADS, mlp_width=len(up),
        layers=count(tensors, f"{BERT}encoder.layer."),
    )  # fmt: skip
    if words is None or places is None:
        return former
    return former.model_copy(update={"words": len(words), "max_words": len(places)})


def _template(chosen: str | None, reads_first: bool) -> TemplateName:
    if reads_first:
        return "seq2seq"
    if chosen == "llama_proj":
        return "minigpt4"
    return "question" if chosen == "opt_proj" else "vicuna"
