"""MGIE's checkpoint: `mllm.pt` (words, output layer, mapper) and `unet.pt`, over a LLaVA-7B and InstructPix2Pix.

The LLaVA is named with `--with`, and so is the folder of InstructPix2Pix, else it comes from the hub. `unet.pt` has the names of
diffusers' UNet, without anything in front; here they begin with `unet.`, as in the checkpoint of its training, which is read too.

Sources: github.com/apple/ml-mgie, mgie_llava.py, mgie_train.py, extract_ckpt.ipynb, demo.ipynb.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.core.weights import HubSource
from sensorium.generators.instruct_pix2pix import InstructPix2PixConfig
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.originals.base import (
    Beside,
    Found,
    count,
    is_pipeline,
    last_rows,
    need,
    pipeline_folder,
    read_json,
)
from sensorium.interop.originals.llava_repository import PROJECTOR, LlavaRepository
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.interop.torch_file import read_checkpoint
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.output_projectors.mapper import MapperConfig

HEAD, UNET, WORDS, EMBEDDINGS = "edit_head.", "unet.", "model.embed_tokens.weight", "emb"
UNET_NAMES = ("conv_in.", "time_embedding.", "down_blocks.", "mid_block.", "up_blocks.", "conv_norm_out.", "conv_out.")
"""How names in `unet.pt` begin."""
SIGNALS = tuple(f"[IMG{i}]" for i in range(8))
TOKENS = ("<im_patch>", "<im_start>", "<im_end>", *SIGNALS)
UNREAD = ("vae.",)
"""In the checkpoint of training; it is Stable Diffusion's, and frozen."""


class Mgie(LlavaRepository):
    """LLaVA at 224 pixels, eight tokens, a mapper, a UNet that looks."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}

    def fits(self, names: Collection[str]) -> bool:
        return any(name.startswith(HEAD) for name in names)

    def canonical(self, name: str) -> str:
        return UNET + name if name.startswith(UNET_NAMES) else super().canonical(name)

    def gather(self, found: Found, beside: Beside) -> Found:
        mine = super().gather(found, beside).tensors
        tensors: dict[str, Tensor] = {}
        for path in (path for path in beside.more if not is_pipeline(path)):
            tensors |= super().gather(replace(found, tensors=read_checkpoint(path)), beside).tensors
            self.config |= read_json(path / "config.json")
        self.config |= found.config
        idle = frozenset(name for name in mine if name == EMBEDDINGS or name.startswith(UNREAD))
        tensors = {k: v for k, v in (tensors | mine).items() if k not in idle}
        words = last_rows(TOKENS, len(tensors[WORDS])) if WORDS in tensors else {}
        if EMBEDDINGS in mine and words:
            _check_embeddings(mine[EMBEDDINGS], tensors[WORDS], found.path)
        return replace(found, tensors=tensors, idle=idle, words=words)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        tensors, path = found.tensors, found.path
        need(tensors, f"{PROJECTOR}weight", path, "name the LLaVA that it goes on from with --with")
        need(tensors, f"{UNET}conv_in.weight", path, "put unet.pt beside mllm.pt, and name their folder")
        rows = len(need(tensors, WORDS, path, "put mllm.pt beside unet.pt, and name their folder"))
        model = super().model(replace(found, config=self.config | {"vocab_size": rows}), beside)
        enter, queries, up, out = (need(tensors, HEAD + name, path, "take a checkpoint with the whole mapper").shape for name in (
            "llm2hid.weight", "query", "mapper.encoder.layers.0.linear1.weight", "hid2feat.weight"))  # fmt: skip
        mapper = MapperConfig(width=enter[0], layers=count(tensors, f"{HEAD}mapper.encoder.layers."), mlp_width=up[0], before=True, guided=True)
        unet = InstructPix2PixConfig(length=queries[1], width=out[0], weights=(HubSource(id="timbrooks/instruct-pix2pix"),))
        backbone = model.backbone.model_copy(update={"added_tokens": tuple(found.words)})
        hand = HandConfig(signals=SIGNALS, projector=mapper, generator=unet)
        return model.model_copy(update={"backbone": backbone, "template": "shikra", "hands": {"image": hand}})

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        pipeline = pipeline_folder(beside)
        tower = super().folders(replace(found, config=self.config), beside)
        return tower | ({} if pipeline is None else {"generators.image": pipeline})

    def key_map(self, names: Collection[str]) -> KeyMap:
        plain, head = super().key_map(names), PROJECTOR_KEYS["mgie"].behind("", "hands.image.")
        return KeyMap(rules=(*plain.rules, *head.rules, Rule(f"{UNET}*", "generators.image.*")), splits=head.splits)


def _check_embeddings(said: Tensor, words: Tensor, path: Path) -> None:
    """Refuse embeddings of the signals that are not those of the words: these are what is read here.

    Raises:
        WeightsError: they differ.
    """
    last = words[-len(SIGNALS) :].float()
    if said.numel() != last.numel() or not said.float().reshape(last.shape).allclose(last, atol=1e-3, rtol=1e-2):
        raise WeightsError(f"{EMBEDDINGS!r} of shape {tuple(said.shape)} is something else than the last {len(SIGNALS)} rows of {WORDS}",
                           expected="the same: the mapper reads these rows", where=str(path))  # fmt: skip
