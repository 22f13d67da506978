"""FROMAGe's checkpoint: two maps out of CLIP, one out of OPT, a scale, and the embedding of [RET].

It lies over OPT (`--llm`) and CLIP ViT-L/14 (`--tower`). The authors' script for pruning also leaves the whole table of
embeddings in the file, which is OPT's own but for that row; their released file, of 11 MB, is without.
Where its words stand is said by `model_args.json`, if that lies beside it.

Source: github.com/kohjingyu/fromage, fromage/models.py (`FromageModel`, `load_fromage`), fromage/prune_model_ckpt.py, fromage_model/.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import WeightsError
from sensorium.generators.found_pictures import RetrievalIndexConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.interop.families.base import text_arch
from sensorium.interop.key_map import KeyMap, Rule, Tail
from sensorium.interop.originals.base import Beside, Found, llm_folder, need, read_json
from sensorium.interop.originals.clip_beside import clip_config, clip_folder
from sensorium.interop.originals.words import rows_with
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig, OtherConfig
from sensorium.output_projectors.retrieval import RetrievalConfig

MODEL, PICTURE = "model.", "<|image|>"
RET = ("[RET]",)
WORDS, TABLE = "ret_input_embeddings.weight", f"{MODEL}input_embeddings.weight"
SEES = f"{MODEL}visual_embeddings.weight"
EMBEDDING = "backbone.lm.model.decoder.embed_tokens.weight"
WHOLE = "take a checkpoint with all that learns"


class Fromage:
    """CLIP's pooled feature as tokens of OPT, and a picture found by the state at [RET]."""

    def fits(self, names: Collection[str]) -> bool:
        return any(self.canonical(name) == WORDS for name in names)

    def canonical(self, name: str) -> str:
        # What training on several devices puts in front.
        return name.removeprefix("module.")

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = {self.canonical(k): v for k, v in found.tensors.items()}
        idle = frozenset({TABLE} & set(tensors))
        return replace(found, config={}, tensors={k: v for k, v in tensors.items() if k not in idle}, idle=idle)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        way = finds(found)
        return over_opt(found, beside, RET, HandConfig(signals=RET, projector=way.projector, generator=way.generator))

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        return {"backbone": llm_folder(beside, found.path), "encoders.image": clip_folder(found, beside)}

    def key_map(self, names: Collection[str]) -> KeyMap:
        hand = PROJECTOR_KEYS["fromage"].behind(MODEL, "hands.image.")
        return KeyMap(rules=(*SEEING, *hand.rules), tails=(Tail(WORDS, EMBEDDING, len(RET)),))


SEEING = (Rule(f"{MODEL}visual_embeddings.*", "projectors.image.linear.*"),)


def finds(found: Found) -> OtherConfig:
    """The way that finds pictures."""
    image = need(found.tensors, f"{MODEL}visual_fc.weight", found.path, WHOLE)
    return OtherConfig(projector=RetrievalConfig(image_width=image.shape[1]), generator=RetrievalIndexConfig(width=image.shape[0]))


def over_opt(found: Found, beside: Beside, signals: tuple[str, ...], hand: HandConfig) -> ModelConfig:
    """FROMAGe's or GILL's graph: a pooled picture in front of OPT, whose last words are the signals.

    Raises:
        WeightsError: the maps are not those of this CLIP and this OPT, or the words stand elsewhere than its tokenizer says.
    """
    folder = llm_folder(beside, found.path)
    added = (PICTURE, *signals)
    rows = rows_with(folder, added)
    _check_rows(found, rows, len(signals))
    backbone = CausalLMConfig(arch=text_arch(read_json(folder / "config.json")) | {"vocab_size": rows}, added_tokens=added)
    encoder, _ = clip_config(clip_folder(found, beside))
    seen = need(found.tensors, SEES, found.path, WHOLE)
    return ModelConfig(
        lanes={"image": LaneConfig(encoder=encoder, projector=LinearConfig(tokens=_tokens(seen, backbone.d_model, found.path)),
                                   resolution=FixedResolution(fit="crop"))},
        backbone=backbone, hands={"image": hand}, template="bare",
    )  # fmt: skip


def _tokens(seen: Tensor, d_model: int, path: Path) -> int:
    tokens, left = divmod(len(seen), d_model)
    if left or not tokens:
        raise WeightsError(f"{SEES} makes {len(seen)} numbers", expected=f"a multiple of {d_model}, the language model's width", where=str(path))
    return tokens


def _check_rows(found: Found, rows: int, signals: int) -> None:
    folder = found.path if found.path.is_dir() else found.path.parent
    said = read_json(folder / "model_args.json").get("retrieval_token_idx")
    places = list(range(rows - signals, rows))
    if said is not None and said not in (places, places[0]):
        raise WeightsError(f"signal tokens with ids {said}", expected=f"{places}, behind those of the language model's tokenizer",
                           where=str(folder / "model_args.json"), fix="name the language model that it was trained over with --llm")  # fmt: skip
