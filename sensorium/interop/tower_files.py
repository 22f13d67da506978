"""Vision towers in the files of those who trained them: OpenCLIP's and OpenAI's CLIP, LAVIS' EVA-CLIP-g, EVA2-CLIP.

Neither heads nor activations are in such files; the recipe's encoder says them. Sources of names:
github.com/mlfoundations/open_clip (src/open_clip/transformer.py, model.py), github.com/openai/CLIP (clip/model.py),
github.com/salesforce/LAVIS (models/eva_vit.py), github.com/baaivision/EVA (EVA-CLIP/rei/eva_clip/eva_vit_model.py), timm (`Eva`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.encoders.imagebind import SOUND
from sensorium.interop.converted import write_folder
from sensorium.interop.key_map import KeyMap, Rule, Split
from sensorium.interop.originals.base import count
from sensorium.interop.originals.lavis import EYE, Lavis, of_eva_vit_g
from sensorium.interop.torch_file import read_checkpoint

TOWER = "encoders.image.tower."


def _clip_side(theirs: str, ours: str) -> tuple[list[Rule], list[Split]]:
    block, layer = f"{theirs}transformer.resblocks.#.", f"{ours}encoder.layers.#."
    pairs = (("ln_1.*", "layer_norm1.*"), ("ln_2.*", "layer_norm2.*"), ("attn.out_proj.*", "self_attn.out_proj.*"),
             ("mlp.c_fc.*", "mlp.fc1.*"), ("mlp.c_proj.*", "mlp.fc2.*"))  # fmt: skip
    splits = [Split(f"{block}attn.in_proj_{kind}", tuple(f"{layer}self_attn.{p}_proj.{kind}" for p in "qkv"))
              for kind in ("weight", "bias")]  # fmt: skip
    return [Rule(block + a, layer + b) for a, b in pairs], splits


_EYE, _EYE_SPLITS = _clip_side("visual.", "vision_model.")
_TEXT, _TEXT_SPLITS = _clip_side("", "text_model.")
SEEN, READ = "vision_model.embeddings.", "text_model.embeddings."
OPEN_CLIP = KeyMap(
    rules=(
        Rule("visual.class_embedding", f"{SEEN}class_embedding"),
        Rule("visual.positional_embedding", f"{SEEN}position_embedding.weight"),
        Rule("visual.conv1.weight", f"{SEEN}patch_embedding.weight"),
        Rule("visual.ln_pre.*", "vision_model.pre_layrnorm.*"),
        Rule("visual.ln_post.*", "vision_model.post_layernorm.*"),
        Rule("visual.proj", "visual_projection.weight", turned=True),
        *_EYE,
        Rule("token_embedding.weight", f"{READ}token_embedding.weight"),
        Rule("positional_embedding", f"{READ}position_embedding.weight"),
        Rule("ln_final.*", "text_model.final_layer_norm.*"),
        Rule("text_projection", "text_projection.weight", turned=True),
        Rule("logit_scale", "logit_scale"),
        *_TEXT,
    ),
    splits=(*_EYE_SPLITS, *_TEXT_SPLITS),
    # Models whose text side is a module of its own; training on several devices.
    aliases=(("module.text.", ""), ("module.", ""), ("text.", "")),
    left_out=("attn_mask", "input_resolution", "context_length", "vocab_size"),
)
"""CLIP by OpenCLIP's names, which are OpenAI's, to those of transformers' `CLIPModel`, both sides."""


def convert_open_clip(file: Path, folder: Path) -> None:
    """Write CLIP's tensors by transformers' names.

    Raises:
        WeightsError: the file is damaged, needs code, or holds another tower.
    """
    tensors = read_checkpoint(file)
    if not any(name.endswith("visual.conv1.weight") for name in tensors):
        raise WeightsError("no visual.conv1.weight", expected="a vision transformer of OpenCLIP or OpenAI", where=str(file))
    write_folder(folder, OPEN_CLIP.to_ours(tensors))


def convert_eva_vit_g(file: Path, folder: Path) -> None:
    """Write LAVIS' `eva_vit_g.pth` as the tower of a BLIP-2 that has not been trained.

    Its last norm (`ln_vision`) is LAVIS' own and starts as one that changes nothing but scale and mean.

    Raises:
        WeightsError: the file is damaged, needs code, or holds another tower.
    """
    eye = {EYE + k: v for k, v in read_checkpoint(file).items() if of_eva_vit_g(k)}
    ours = {k.removeprefix(TOWER): v for k, v in Lavis().key_map(eye).to_ours(eye).items()}
    if "embeddings.class_embedding" not in ours:
        raise WeightsError("no cls_token", expected="EVA-CLIP-g", where=str(file))
    width = ours["embeddings.class_embedding"].shape[-1]
    ours |= {"post_layernorm.weight": torch.ones(width), "post_layernorm.bias": torch.zeros(width)}
    write_folder(folder, ours)


BLOCK = "blocks.#."
EVA_BLOCK = (
    ("norm1.*", "norm_1.*"), ("norm2.*", "norm_2.*"), ("attn.proj.*", "attention.out.*"),
    *((f"attn.{p}_proj.*", f"attention.{p}.*") for p in "qkv"),
    ("attn.q_bias", "attention.q.bias"), ("attn.v_bias", "attention.v.bias"),
    ("attn.inner_attn_ln.*", "attention.norm.*"), ("attn.norm.*", "attention.norm.*"),
    ("mlp.w1.*", "mlp.gate.*"), ("mlp.w2.*", "mlp.up.*"), ("mlp.w3.*", "mlp.down.*"), ("mlp.ffn_ln.*", "mlp.norm.*"),
    ("mlp.fc1_g.*", "mlp.gate.*"), ("mlp.fc1_x.*", "mlp.up.*"), ("mlp.fc1.*", "mlp.up.*"), ("mlp.fc2.*", "mlp.down.*"),
    ("mlp.norm.*", "mlp.norm.*"),
)  # fmt: skip
EVA_CLIP = KeyMap(
    rules=(
        Rule("cls_token", "cls_D", lead=2),
        Rule("pos_embed", "positions_LD", lead=1),
        Rule("patch_embed.proj.*", "patches.*"),
        *(Rule(BLOCK + a, BLOCK + b) for a, b in EVA_BLOCK),
    ),
    splits=(Split(f"{BLOCK}attn.qkv.weight", tuple(f"{BLOCK}attention.{p}.weight" for p in "qkv")),),
)
"""EVA2-CLIP by the names of its repository and of timm, to ours; one way only."""
# The other side, what is behind the last block, and what is counted, not learnt.
NOT_EVA = ("text.", "logit_scale", "norm.", "fc_norm.", "head.", "rope.", "mask_token", "token_embedding.", "transformer.",
           "ln_final.", "positional_embedding", "text_projection", "attn_mask")  # fmt: skip


def convert_eva_clip(file: Path, folder: Path) -> None:
    """Write EVA2-CLIP's tower without its last block and final norm, as CogVLM takes it.

    Raises:
        WeightsError: the file is damaged, needs code, or holds another tower.
    """
    write_folder(folder, eva_clip(read_checkpoint(file), str(file)))


def eva_clip(theirs: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """EVA2-CLIP's tensors by our names.

    Raises:
        WeightsError: they are of another tower.
    """
    plain = {k.removeprefix("module.").removeprefix("visual."): v for k, v in theirs.items()}
    last = count(plain, "blocks.") - 1
    if last < 1 or "cls_token" not in plain:
        raise WeightsError("no cls_token, or fewer than two blocks", expected="EVA2-CLIP's vision tower", where=where)
    kept = {k: v for k, v in plain.items()
            if not k.startswith((*NOT_EVA, f"blocks.{last}.")) and ".rope." not in k}  # fmt: skip
    ours = EVA_CLIP.to_ours(kept)
    for name in [n for n in kept if n.endswith("attn.qkv.weight")]:
        # One matrix for all three has biases for queries and values; ours has zeros for keys.
        rows = len(kept[name]) // 3
        ours[name.replace("attn.qkv.weight", "attention.k.bias")] = kept[name].new_zeros(rows)
    return ours


BIND, BOUND = "modality_trunks.vision.blocks.#.", "vision_model.encoder.layers.#."
IMAGEBIND = KeyMap(
    rules=(
        Rule("modality_preprocessors.vision.cls_token", f"{SEEN}class_embedding", lead=2),
        Rule("modality_preprocessors.vision.rgbt_stem.proj.1.weight", f"{SEEN}patch_embedding.weight"),
        Rule("modality_preprocessors.vision.pos_embedding_helper.pos_embed", f"{SEEN}position_embedding.weight", lead=1),
        Rule("modality_trunks.vision.pre_transformer_layer.0.*", "vision_model.pre_layrnorm.*"),
        Rule(f"{BIND}norm_1.*", f"{BOUND}layer_norm1.*"),
        Rule(f"{BIND}norm_2.*", f"{BOUND}layer_norm2.*"),
        Rule(f"{BIND}attn.out_proj.*", f"{BOUND}self_attn.out_proj.*"),
        Rule(f"{BIND}mlp.*", f"{BOUND}mlp.*"),
        Rule("modality_heads.vision.0.*", "vision_model.post_layernorm.*"),
        Rule("modality_heads.vision.2.weight", "visual_projection.weight"),
    ),
    splits=tuple(Split(f"{BIND}attn.in_proj_{kind}", tuple(f"{BOUND}self_attn.{p}_proj.{kind}" for p in "qkv"))
                 for kind in ("weight", "bias")),
)  # fmt: skip
"""ImageBind's eye by its repository's names, to those of `encoders.imagebind`."""

POST = "modality_postprocessors."
"""By how much vectors are lengthened, for contrasts alone."""
HEARD = "modality_trunks.audio.blocks.#."
IMAGEBIND_SOUND = KeyMap(
    rules=(
        Rule("modality_preprocessors.audio.cls_token", "cls_D", lead=2),
        Rule("modality_preprocessors.audio.rgbt_stem.proj.weight", "patches.weight"),
        Rule("modality_preprocessors.audio.rgbt_stem.norm_layer.*", "patch_norm.*"),
        Rule("modality_preprocessors.audio.pos_embedding_helper.pos_embed", "positions_LD", lead=1),
        Rule(f"{HEARD}norm_1.*", "layers.#.norm_self.*"),
        Rule(f"{HEARD}norm_2.*", "layers.#.norm_ff.*"),
        Rule(f"{HEARD}attn.bias_k", "layers.#.attention.key_D", lead=2),
        Rule(f"{HEARD}attn.bias_v", "layers.#.attention.value_D", lead=2),
        Rule(f"{HEARD}attn.out_proj.*", "layers.#.attention.out.*"),
        Rule(f"{HEARD}mlp.fc1.*", "layers.#.up.*"),
        Rule(f"{HEARD}mlp.fc2.*", "layers.#.down.*"),
        Rule("modality_heads.audio.0.*", "norm.*"),
        Rule("modality_heads.audio.2.weight", "out.weight"),
    ),
    splits=tuple(Split(f"{HEARD}attn.in_proj_{kind}", tuple(f"layers.#.attention.{p}.{kind}" for p in "qkv"))
                 for kind in ("weight", "bias")),
)  # fmt: skip
"""Its ear, to the names of `encoders.imagebind_sound`."""


def convert_imagebind(file: Path, folder: Path) -> None:
    """Write the parts of `imagebind_huge.pth` that see and hear; its other modalities are left out.

    Raises:
        WeightsError: the file is damaged, needs code, or holds another tower.
    """
    tensors = read_checkpoint(file)
    if "modality_heads.vision.2.weight" not in tensors:
        raise WeightsError("no modality_heads.vision.2.weight", expected="ImageBind", where=str(file))
    kept = {name: value for name, value in tensors.items() if not name.startswith(POST)}
    seeing, hearing = ({name: value for name, value in kept.items() if part in name} for part in (".vision.", ".audio."))
    heard = {SOUND + name: value for name, value in IMAGEBIND_SOUND.to_ours(hearing).items()} if "modality_preprocessors.audio.cls_token" in hearing else {}
    write_folder(folder, IMAGEBIND.to_ours(seeing) | heard)
