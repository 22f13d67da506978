"""GILL's checkpoint: FROMAGe's, with a mapper to Stable Diffusion and the embeddings of eight words; and its decision model.

`pretrained_ckpt.pth.tar` and `decision_model.pth.tar` lie in one folder; the second may as well be named with `--with`, or
be left out: pictures are then drawn, not found. The mapper's four heads are in no tensor.

Source: github.com/kohjingyu/gill, gill/models.py (`GILLModel`, `GILL`, `load_gill`), gill/layers.py, scripts/prune_model_ckpt.py,
TrainDecisionClassifier.ipynb, checkpoints/gill_opt/.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sensorium.core.weights import HubSource
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.interop.key_map import KeyMap, Rule, Tail
from sensorium.interop.originals.base import Beside, Found, need
from sensorium.interop.originals.fromage import (
    EMBEDDING,
    MODEL,
    SEEING,
    TABLE,
    WHOLE,
    Fromage,
    finds,
    over_opt,
)
from sensorium.interop.originals.mapper import mapper_of
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.interop.torch_file import read_checkpoint
from sensorium.model.choice import ChoiceConfig
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig

DRAWS, DECIDES = f"{MODEL}gen_text_hidden_fcs.0.", "1.weight"
TOKENS = 8


class Gill(Fromage):
    """FROMAGe's graph, whose words also make a picture."""

    def __init__(self) -> None:
        self.tokens = TOKENS

    def fits(self, names: Collection[str]) -> bool:
        return any(self.canonical(name).startswith(f"{MODEL}ret_text_hidden_fcs.") for name in names)

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = {k: v for path in beside.more for k, v in read_checkpoint(path).items()} | found.tensors
        tensors = {self.canonical(k): v for k, v in tensors.items()}
        self.tokens = len(tensors[TABLE]) if TABLE in tensors else found.config.get("num_tokens", TOKENS)
        return replace(found, config={"model_type": "gill", "num_tokens": self.tokens}, tensors=tensors)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        need(found.tensors, TABLE, found.path, WHOLE)
        mapper, length, width = mapper_of(found, DRAWS)
        generator = StableDiffusionConfig(length=length, width=width, weights=(HubSource(id="stable-diffusion-v1-5/stable-diffusion-v1-5"),))
        signals = tuple(f"[IMG{i}]" for i in range(self.tokens))
        choice = ChoiceConfig() if DECIDES in found.tensors else None
        return over_opt(found, beside, signals, HandConfig(signals=signals, projector=mapper, generator=generator, other=finds(found), choice=choice))

    def key_map(self, names: Collection[str]) -> KeyMap:
        draws = PROJECTOR_KEYS["gill"].behind(MODEL, "hands.image.")
        seeks = PROJECTOR_KEYS["gill_retrieval"].behind(MODEL, "hands.image_other.")
        return KeyMap(
            rules=(*SEEING, *draws.rules, *seeks.rules, Rule("1.*", "hands.image_choice.out.*")),
            splits=draws.splits, tails=(Tail(TABLE, EMBEDDING, self.tokens),),
        )  # fmt: skip
