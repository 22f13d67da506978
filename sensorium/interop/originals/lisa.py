"""LISA's checkpoints: a LLaVA whose tensors have SAM, as its authors call them, and the way to its prompt among them.

The low-rank matrices are merged, and CLIP is left out. Which numbers the words for pictures and masks have depends on the
LLaVA that LISA grew out of, and stands in `added_tokens.json`.

Sources: github.com/dvlab-research/LISA, model/LISA.py, train_ds.py, chat.py, merge_lora_weights_and_save_hf_model.py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sensorium.core.errors import WeightsError
from sensorium.interop.key_map import KeyMap
from sensorium.interop.originals.base import Beside, Found, last_rows, read_json
from sensorium.interop.originals.llava_repository import LlavaRepository
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.interop.sam_file import LISA, SAM, sam_config
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.output_projectors.mask_prompt import MaskPromptConfig

SEG = "[SEG]"
TOKENS = ("<im_patch>", "<im_start>", "<im_end>", SEG)
"""Behind LLaMA's, where LISA grew out of LLaVA-Lightning-7B-v1-1."""
OWN_KEYS = ("train_mask_decoder", "out_dim", "pretrain_mm_mlp_adapter")


class Lisa(LlavaRepository):
    """LLaVA at 224 pixels, `[SEG]`, SAM."""

    def fits(self, names: Collection[str]) -> bool:
        return any(LISA in name for name in names)

    def gather(self, found: Found, beside: Beside) -> Found:
        found = super().gather(found, beside)
        tensors = {k: v for k, v in found.tensors.items() if not k.endswith(tuple(SAM.left_out))}
        return replace(found, tensors=tensors, words=_words(found))

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        model = super().model(found, beside)
        hand = HandConfig(signals=(SEG,), projector=MaskPromptConfig(), generator=sam_config(found.tensors, LISA, found.path))
        backbone = model.backbone.model_copy(update={"added_tokens": tuple(found.words)})
        return model.model_copy(update={"backbone": backbone, "template": "lisa", "hands": {"mask": hand}})

    def _text(self, found: Found, beside: Beside) -> dict[str, Any]:
        return {k: v for k, v in super()._text(found, beside).items() if k not in OWN_KEYS}

    def key_map(self, names: Collection[str]) -> KeyMap:
        maps = (super().key_map(names), PROJECTOR_KEYS["lisa"].behind("model.", "hands.mask."), SAM.behind(LISA, "generators.mask."))
        return KeyMap(rules=tuple(rule for one in maps for rule in one.rules))


def _words(found: Found) -> dict[str, int]:
    """The words behind LLaMA's, in their order.

    Raises:
        WeightsError: `[SEG]` is not among them, or they are not all that is behind.
    """
    said = {str(token): number for token, number in read_json(found.path / "added_tokens.json").items()}
    rows = int(found.config.get("vocab_size", 0))
    if not said:
        return last_rows(TOKENS, rows)
    words = last_rows(sorted(said, key=lambda token: said[token]), rows)
    if SEG not in said or words != said:
        raise WeightsError(f"tokens {said} for {rows} rows of the embedding", expected=f"{SEG} among them, and the last rows theirs",
                           where=str(found.path / "added_tokens.json"))  # fmt: skip
    return words
