"""SAM in its authors' file, or within LISA's checkpoint, by transformers' names.

Sources of names: github.com/facebookresearch/segment-anything (segment_anything/modeling), github.com/dvlab-research/LISA.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.generators.sam import SamConfig
from sensorium.interop.converted import write_folder
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.originals.base import count, need
from sensorium.interop.torch_file import read_checkpoint

LISA = "model.visual_model."
PLACES = "shared_image_embedding.positional_embedding"
_EYE, _EYES = "image_encoder.", "vision_encoder."
_ASK, _LAYER, _FINAL = "prompt_encoder.", "mask_decoder.transformer.layers.#.", "mask_decoder.transformer."
SAM = KeyMap(
    rules=(
        Rule(f"{_EYE}pos_embed", f"{_EYES}pos_embed"),
        Rule(f"{_EYE}patch_embed.proj.*", f"{_EYES}patch_embed.projection.*"),
        *(Rule(f"{_EYE}blocks.#.norm{n}.*", f"{_EYES}layers.#.layer_norm{n}.*") for n in (1, 2)),
        Rule(f"{_EYE}blocks.#.*", f"{_EYES}layers.#.*"),
        *(Rule(f"{_EYE}neck.{n}.*", f"{_EYES}neck.{name}.*")
          for n, name in enumerate(("conv1", "layer_norm1", "conv2", "layer_norm2"))),
        Rule(f"{_ASK}pe_layer.positional_encoding_gaussian_matrix", PLACES),
        Rule(f"{_ASK}point_embeddings.#.*", f"{_ASK}point_embed.#.*"),
        *(Rule(f"{_ASK}mask_downscaling.{n}.*", f"{_ASK}mask_embed.{name}.*")
          for n, name in ((0, "conv1"), (1, "layer_norm1"), (3, "conv2"), (4, "layer_norm2"), (6, "conv3"))),
        *(Rule(f"{_LAYER}norm{n}.*", f"{_LAYER}layer_norm{n}.*") for n in (1, 2, 3, 4)),
        Rule(f"{_FINAL}norm_final_attn.*", f"{_FINAL}layer_norm_final_attn.*"),
        *(Rule(f"mask_decoder.output_upscaling.{n}.*", f"mask_decoder.{name}.*")
          for n, name in ((0, "upscale_conv1"), (1, "upscale_layer_norm"), (3, "upscale_conv2"))),
        *(Rule(f"{stack}layers.{n}.*", f"{stack}{name}.*")
          for stack in ("mask_decoder.output_hypernetworks_mlps.#.", "mask_decoder.iou_prediction_head.")
          for n, name in enumerate(("proj_in", "layers.0", "proj_out"))),
        # What both call the same.
        *(Rule(name, name) for name in (
            f"{_LAYER}*", f"{_FINAL}final_attn_token_to_image.*", "mask_decoder.iou_token.*", "mask_decoder.mask_tokens.*",
            f"{_ASK}not_a_point_embed.*", f"{_ASK}no_mask_embed.*")),
    ),
    aliases=((f"base_model.model.{LISA}", ""), (LISA, "")),
    left_out=("pixel_mean", "pixel_std"),
)  # fmt: skip
"""The authors' names to those of transformers' `SamModel`."""
SAYS_SIZE = (f"{_EYE}patch_embed.proj.weight", f"{_EYE}pos_embed", f"{_EYE}neck.0.weight", f"{_FINAL}layers.0.mlp.lin1.weight")


def sam_config(tensors: Mapping[str, Tensor], before: str, path: Path) -> SamConfig:
    """The SAM that tensors by its authors' names, behind a prefix, are of.

    Raises:
        WeightsError: one that says a size is missing.
    """
    sizes = {name: need(tensors, before + name, path, "take a checkpoint with the whole SAM").shape for name in SAYS_SIZE}
    patches, places, neck, up = sizes.values()
    blocks = f"{before}{_EYE}blocks."
    turns = [need(tensors, f"{blocks}{i}.attn.rel_pos_h", path, "take a SAM with relative positions").shape
             for i in range(count(tensors, blocks))]  # fmt: skip
    # A table of relative positions has a row for each distance inside its window.
    sides = [(rows + 1) // 2 for rows, _ in turns]
    return SamConfig(
        width=patches[0], layers=len(sides), heads=patches[0] // turns[0][1], patch_size_px=patches[-1],
        image_size_px=places[1] * patches[-1], window=min(sides), global_layers=tuple(i for i, side in enumerate(sides) if side > min(sides)),
        prompt_width=neck[0], decoder_layers=count(tensors, f"{before}{_FINAL}layers."), decoder_mlp_width=up[0], decoder_norm_eps=1e-5,
    )  # fmt: skip


def convert_sam(file: Path, folder: Path) -> None:
    """Write SAM's tensors by transformers' names; of LISA's whole checkpoint, those of its SAM.

    Raises:
        WeightsError: the file is damaged, needs code, or holds no SAM.
    """
    tensors = read_checkpoint(file)
    inner = {name: value for name, value in tensors.items() if LISA in name}
    tensors = inner or tensors
    if not any(name.endswith(f"{_EYE}patch_embed.proj.weight") for name in tensors):
        raise WeightsError("no image_encoder.patch_embed.proj.weight", expected="SAM by its authors' names, or LISA",
                           where=str(file))  # fmt: skip
    write_folder(folder, SAM.to_ours(tensors))
