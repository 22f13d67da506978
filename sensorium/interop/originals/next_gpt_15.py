"""NExT-GPT 1.5: a LLaMA whose tensors have those of ImageBind, groups and mappers among them, and what its training leaves behind.

That is `mm_input_projector.bin`, then `mm_output_projector.bin`, then a folder with `adapter_model.*` and `non_lora_trainables.bin`:
each lies over Vicuna (`--llm`), `imagebind_huge.pth` (`--tower`) and those before it (`--with`). What is merged is whole. Of
ImageBind eye and ear are read here, all else goes back as it came. Heads are in the code alone.

Source: github.com/NExT-GPT/NExT-GPT, train.py, merge_lora_weights.py, nextgpt/model/ (builder.py, nextgpt_arch.py, multimodal_projector/).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.hands import MadeKind
from sensorium.core.weights import HubSource
from sensorium.generators.audioldm import AudioLdmConfig
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.generators.text_to_video import TextToVideoConfig
from sensorium.input_projectors.grouping import GroupingConfig
from sensorium.interop.families.base import text_arch
from sensorium.interop.key_map import KeyMap, Rule, Split
from sensorium.interop.originals import llava_repository as llava
from sensorium.interop.originals.base import Beside, Found, count, llm_folder, need, read_json
from sensorium.interop.originals.mapper import mapper_of
from sensorium.interop.originals.next_gpt import imagebind_encoder, imagebind_senses, is_sense
from sensorium.interop.originals.words import words_of
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.interop.torch_file import read_checkpoint
from sensorium.interop.tower_files import IMAGEBIND, IMAGEBIND_SOUND
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.nn.pretrained import HARMLESS

PROJECTOR, TOWER, LAYERS = "model.mm_input_projector.", "model.multimodal_tower.multimodal_tower.", "model.layers."
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
OWN_KEYS = (*llava.OWN_KEYS, "multimodal_", "video_", "audio_", "n_img_", "n_vid_", "n_aud_", "layer_idx")
MAPPERS: Mapping[MadeKind, str] = {
    "image": "model.mm_output_img_projector.", "video": "model.mm_output_vid_projector.", "audio": "model.mm_output_aud_projector.",
}  # fmt: skip
HEADS = 8
COUNTS: Mapping[MadeKind, int] = {"image": 4, "video": 24, "audio": 8}
SIGNALS = {kind: tuple(f"<{kind}_{i:02d}>" for i in range(number)) for kind, number in COUNTS.items()}
WORDS = tuple(token for tokens in SIGNALS.values() for token in tokens)
BETWEEN = "▁"
"""LLaMA's space, which its tokenizer puts between two signals, and the mappers read."""

STAGE, BLOCK, GATHER = "layers.#.", "layers.#.blocks.#.", "layers.#.downsample."
OURS_BLOCK, OURS_GATHER = "stages.#.layers.#.", "stages.#.gather."


def _mlp(theirs: str, ours: str) -> tuple[Rule, Rule]:
    return Rule(f"{theirs}fc1.*", f"{ours}up.*"), Rule(f"{theirs}fc2.*", f"{ours}down.*")


def _same(theirs: str, ours: str, names: Mapping[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(f"{theirs}{a}.*", f"{ours}{b}.*") for a, b in names.items())


GROUPING = KeyMap(
    rules=(
        Rule("in_fc.*", "enter.*"), Rule("norm.*", "norm.*"), Rule("out_fc.*", "out.*"),
        Rule(f"{STAGE}group_token", "stages.#.tokens_GD", lead=1),
        Rule(f"{STAGE}group_projector.0.*", "stages.#.carry.norm.*"), *_mlp(f"{STAGE}group_projector.1.", "stages.#.carry.mix."),
        *_same(BLOCK, OURS_BLOCK, {"norm1": "norm_self", "norm2": "norm_ff", "attn.proj": "attention.out"}), *_mlp(f"{BLOCK}mlp.", f"{OURS_BLOCK}ff."),
        *_same(GATHER, OURS_GATHER, {"norm_tokens": "norm_tokens", "norm_post_tokens": "norm_mixed", "norm_x": "norm_features", "norm_new_x": "norm_ff"}),
        *_same(f"{GATHER}pre_assign_attn.", OURS_GATHER, {"norm2": "norm_look_ff", "norm_post": "norm_look", "attn.proj": "look.out"}),
        *_same(f"{GATHER}pre_assign_attn.attn.", f"{OURS_GATHER}look.", {f"{x}_proj": x for x in "qkv"}),
        *_same(f"{GATHER}assign.", OURS_GATHER, {f"{x}_proj": x for x in "qkv"} | {"proj": "assigned"}),
        *_mlp(f"{GATHER}mlp_inter.", f"{OURS_GATHER}mix."), *_mlp(f"{GATHER}pre_assign_attn.mlp.", f"{OURS_GATHER}look_ff."),
        *_mlp(f"{GATHER}mlp_channels.", f"{OURS_GATHER}ff."),
    ),
    splits=(Split(f"{BLOCK}attn.qkv.weight", tuple(f"{OURS_BLOCK}attention.{x}.weight" for x in "qkv")),),
)  # fmt: skip
"""`GroupProjector` by its authors' names, to those of `input_projectors.grouping`."""


class NextGpt15:
    """ImageBind's pooled vector, eight groups in front of Vicuna v1.5, three mappers behind it."""

    def fits(self, names: Collection[str]) -> bool:
        return any("mm_input_projector." in name or "mm_output_img_projector." in name for name in names)

    def canonical(self, name: str) -> str:
        name = llava.LlavaRepository().canonical(name)
        return f"model.{name}" if name.startswith("mm_") else name

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = {TOWER + k: v for k, v in imagebind_senses(beside.tower).items()} if beside.tower is not None else {}
        for part in (*(read_checkpoint(path) for path in beside.more), found.tensors):
            tensors |= {self.canonical(k): v for k, v in part.items() if not k.endswith(HARMLESS)}
        idle = frozenset(k for k in tensors if k.startswith(TOWER) and not is_sense(k))
        return replace(found, tensors={k: v for k, v in tensors.items() if k not in idle}, idle=idle)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        fix = "name the first stage's file with --with; of the projectors that its code knows, only 'group' was published"
        need(found.tensors, f"{PROJECTOR}in_fc.weight", found.path, fix)
        if _whole(found) and beside.llm is None:
            beside = replace(beside, llm=found.path if found.path.is_dir() else found.path.parent)
        rows, _ = words_of(found, beside, TABLES, (WORDS,))
        said = text_arch(read_json(llm_folder(beside, found.path) / "config.json"))
        arch = {k: v for k, v in said.items() if not k.startswith(OWN_KEYS)} | {"model_type": "llama", "vocab_size": rows}
        encoder = imagebind_encoder(found, TOWER)
        lane = LaneConfig(encoder=encoder, projector=_grouping(found), resolution=FixedResolution(fit="letterbox"))
        return ModelConfig(
            lanes={"image": lane}, backbone=CausalLMConfig(arch=arch, added_tokens=WORDS), template="vicuna",
            hands={kind: _hand(found, kind) for kind in MAPPERS},
        )  # fmt: skip

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        return {} if _whole(found) else {"backbone": llm_folder(beside, found.path)}

    def key_map(self, names: Collection[str]) -> KeyMap:
        parts = [GROUPING.behind(PROJECTOR, "projectors.image."), IMAGEBIND.behind(TOWER, "encoders.image.tower."),
                 IMAGEBIND_SOUND.behind(TOWER, "encoders.image.sound."),
                 *(PROJECTOR_KEYS["next_gpt_15"].behind(before, f"hands.{kind}.") for kind, before in MAPPERS.items())]  # fmt: skip
        llm = tuple(Rule(f"{name}*", f"backbone.lm.{name}*") for name in ("model.embed_tokens.", "model.norm.", "lm_head."))
        layers = Rule(f"{LAYERS}#.*", f"backbone.lm.{LAYERS}#.*")
        return KeyMap(rules=(*llm, layers, *(r for part in parts for r in part.rules)), splits=tuple(s for part in parts for s in part.splits))


def _whole(found: Found) -> bool:
    """Whether the language model is in it."""
    return any(name.startswith(LAYERS) and ".lora_" not in name for name in found.tensors)


def _grouping(found: Found) -> GroupingConfig:
    """The projector's sizes."""
    stages = range(count(found.tensors, f"{PROJECTOR}layers."))
    tokens = [found.tensors.get(f"{PROJECTOR}layers.{i}.group_token") for i in stages]
    return GroupingConfig(
        width=len(found.tensors[f"{PROJECTOR}in_fc.weight"]), heads=HEADS,
        depths=tuple(count(found.tensors, f"{PROJECTOR}layers.{i}.blocks.") for i in stages),
        groups=tuple(one.shape[1] for one in tokens if one is not None),
    )  # fmt: skip


def _hand(found: Found, kind: MadeKind) -> HandConfig:
    mapper, length, width = mapper_of(found, MAPPERS[kind], out="out_fc")
    signals = tuple(token for signal in SIGNALS[kind] for token in (BETWEEN, signal))[1:]
    if kind == "image":
        generator = StableDiffusionConfig(length=length, width=width, weights=(HubSource(id="stabilityai/stable-diffusion-2"),))
    elif kind == "video":
        generator = TextToVideoConfig(length=length, width=width, weights=(HubSource(id="cerspense/zeroscope_v2_XL"),))
    else:
        generator = AudioLdmConfig(width=width, weights=(HubSource(id="cvssp/audioldm"),))
    return HandConfig(signals=signals, projector=mapper.model_copy(update={"query_std": 0.0}), generator=generator)
