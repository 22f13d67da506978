"""SEED-LLaMA, 8B or 14B: a LLaMA whose words behind its own are codes of pictures, and SEED's tokenizer, `seed_quantizer.pt`, beside it.

The first is a folder in transformers' layout, like any LLaMA; what makes it this is the tokenizer's file, named with `--with`. Which numbers
codes and marks have is read from the `added_tokens.json` or `tokenizer.json` that lies with either, or in the folder that `--llm` names.
An export holds the LLaMA: the tokenizer of pictures is frozen.

Sources: github.com/AILab-CVC/SEED, models/seed_llama_tokenizer.py, models/seed_qformer/, scripts/seed_llama_inference_8B.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.hands import Drawing
from sensorium.core.weights import FileSource
from sensorium.generators.seed import SeedConfig
from sensorium.generators.unclip import UnclipConfig
from sensorium.interop.families.base import text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.locate import locate
from sensorium.interop.originals.base import Beside, Found, count, need, read_json
from sensorium.interop.originals.lavis import BERT, EYE, QFORMER_HEADS, tower_config
from sensorium.interop.seed_file import CODES
from sensorium.interop.torch_file import read_checkpoint
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import ModelConfig
from sensorium.model.picture_words import PictureWordsConfig
from sensorium.nn.pretrained import HARMLESS

MARKS, FIRST = ("<img>", "</img>"), "<img_00000>"
LAYERS_13B = 40
FIX = "name seed_quantizer.pt with --with"


class SeedLlama:
    """LLaMA that reads and writes pictures as 32 codes each."""

    def fits(self, names: Collection[str]) -> bool:
        return CODES in names

    def canonical(self, name: str) -> str:
        return name

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = {k: v for k, v in found.tensors.items() if not k.endswith(HARMLESS)}
        if not tensors:
            return found
        file = _file(found, beside)
        return replace(found, tensors=tensors, words=_words((found.path, file.parent, *([beside.llm] if beside.llm else [])), found.path))

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        if found.config.get("model_type") != "llama":
            raise ConfigError(f"SEED's tokenizer beside {found.config.get('model_type')!r}", expected="a folder of a LLaMA", where=str(found.path))
        tokenizer = seed_config(read_checkpoint(_file(found, beside)), found.path)
        picture = PictureWordsConfig(tokenizer=tokenizer, words=((found.words[FIRST], tokenizer.codes),), begin=MARKS[:1], end=MARKS[1:],
                                     resolution=FixedResolution(fit="stretch"), interpolation="bilinear", drawing=Drawing(top_p=0.5))  # fmt: skip
        backbone = CausalLMConfig(arch=text_arch(found.config), added_tokens=tuple(found.words))
        # The 14B is Llama 2's 13B, whose turns stand in brackets.
        larger = backbone.num_layers == LAYERS_13B
        return ModelConfig(backbone=backbone, picture_words=picture, template="seed_llama_14b" if larger else "seed_llama")

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        folder = locate((FileSource(path=str(_file(found, beside)), format="seed"),))
        assert folder is not None
        return {"picture_tokenizer": folder}

    def key_map(self, names: Collection[str]) -> KeyMap:
        return KeyMap(rules=(Rule("model.*", "backbone.lm.model.*"), Rule("lm_head.*", "backbone.lm.lm_head.*")))


def _file(found: Found, beside: Beside) -> Path:
    """The last file beside.

    Raises:
        WeightsError: there is none.
    """
    files = [path for path in beside.more if path.is_file()]
    if not files:
        raise WeightsError("no tokenizer of pictures", where=str(found.path), fix=FIX)
    return files[-1]


def _words(folders: Iterable[Path], path: Path) -> dict[str, int]:
    """Codes and marks with their rows, in their order, out of the first folder that knows them.

    Raises:
        WeightsError: none does.
    """
    for folder in folders:
        said = {str(token): number for token, number in read_json(folder / "added_tokens.json").items()}
        listed = read_json(folder / "tokenizer.json").get("added_tokens") or []
        said = said or {str(entry["content"]): int(entry["id"]) for entry in listed}
        if {FIRST, *MARKS} <= set(said):
            least = min(said[token] for token in (FIRST, *MARKS))
            return {token: number for token, number in sorted(said.items(), key=lambda item: item[1]) if number >= least}
    raise WeightsError(f"no numbers of {FIRST}, {', '.join(MARKS)}", expected="in an added_tokens.json or tokenizer.json", where=str(path),
                       fix="name the folder of SEED-LLaMA's tokenizer with --llm")  # fmt: skip


def seed_config(tensors: Mapping[str, Tensor], path: Path) -> SeedConfig:
    """The tokenizer that tensors by its authors' names are of.

    Raises:
        WeightsError: one that says a size is missing.
    """
    need(tensors, f"{EYE}blocks.0.mlp.fc1.weight", path, FIX)
    tower = tower_config(tensors)
    codes, queries, up, out = (need(tensors, name, path, FIX).shape for name in (
        CODES, "query_tokens", f"{BERT}encoder.layer.0.intermediate_query.dense.weight", "distill_image_proj.weight"))  # fmt: skip
    return SeedConfig(
        size_px=tower.image_size_px, codes=codes[0], code_width=codes[1], queries=queries[1], width=queries[2], heads=QFORMER_HEADS,
        layers=count(tensors, f"{BERT}encoder.layer."), mlp_width=up[0], blocks=count(tensors, "blocks_image."),
        gather="narrow" if "image_down.0.weight" in tensors else "former", tower_width=tower.width, tower_layers=tower.layers,
        tower_heads=tower.heads, tower_mlp_width=tower.mlp_width, patch_px=tower.patch_size_px, generator=UnclipConfig(width=out[0]),
    )  # fmt: skip
