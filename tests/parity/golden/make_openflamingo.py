"""Writes openflamingo.json.gz: what OpenFlamingo itself computes from weights that any program can write
down again.

    python make_openflamingo.py FOLDER

FOLDER holds the unpacked wheel open-flamingo 2.0.1 (PyPI) beside einops and einops-exts. Its factory,
which needs open_clip and a network, is not imported: the model is put together as the factory does it.
"""

from __future__ import annotations

import gzip
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(sys.argv[1])
sys.path[:0] = [str(FOLDER), str(Path(__file__).parents[1])]
package = types.ModuleType("open_flamingo")
package.__path__ = [str(FOLDER / "open_flamingo")]
sys.modules["open_flamingo"] = package

from open_flamingo.src.flamingo import Flamingo  # noqa: E402 # pyright: ignore
from open_flamingo.src.flamingo_lm import FlamingoLMMixin  # noqa: E402 # pyright: ignore
from open_flamingo.src.utils import extend_instance  # noqa: E402 # pyright: ignore
from openflamingo_cases import CASES, EVERY, GPT_NEOX, IMAGE, OPT, VISION, fill, pixels  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel  # noqa: E402

LAYERS = {"gpt_neox": "gpt_neox.layers", "opt": "model.decoder.layers"}


class Visual(torch.nn.Module):
    """CLIP as open_clip gives it with `output_tokens`: the pooled token, and the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(CLIPVisionConfig(**VISION))

    def forward(self, pixels_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.tower(pixels_NCHW)
        return output.pooler_output, output.last_hidden_state[:, 1:]


def flamingo(text: dict[str, Any]) -> Any:
    kind = text["model_type"]
    config = AutoConfig.for_model(**text)
    lm = AutoModelForCausalLM.from_config(config)
    extend_instance(lm, FlamingoLMMixin)
    lm.set_decoder_layers_attr_name(LAYERS[kind])
    vision = types.SimpleNamespace(visual=Visual())
    return Flamingo(vision, lm, IMAGE - 1, IMAGE, vis_dim=VISION["hidden_size"],
                    cross_attn_every_n_layers=EVERY).eval()  # fmt: skip


def run(model: Any, vision_x: torch.Tensor, ids: list[int]) -> torch.Tensor:
    given = torch.tensor([ids])
    return model(vision_x=vision_x, lang_x=given, attention_mask=torch.ones_like(given)).logits[0]


@torch.no_grad()
def golden(text: dict[str, Any]) -> dict[str, Any]:
    model = flamingo(text)
    names = {k: v for k, v in model.state_dict().items() if "old_decoder_blocks" not in k}
    trained = {k: v for k, v in names.items() if "gated_cross_attn_layers." not in k}
    mine = {k.replace("vision_encoder.tower.", "vision_encoder."): v for k, v in trained.items()}
    shapes = {k: list(v.shape) for k, v in sorted(mine.items())}
    fill(mine)
    cases: dict[str, Any] = {}
    for name, ids in CASES.items():
        vision_x = pixels(ids.count(IMAGE))[None, :, None]
        logits = run(model, vision_x, ids)
        # Its own generate() does not run under the transformers of today: the whole row each time.
        text = list(ids)
        for _ in range(6):
            text.append(int(run(model, vision_x, text)[-1].argmax()))
        rounded = [[round(float(x), 6) for x in row] for row in logits[:, ::7]]
        cases[name] = {"logits": rounded, "text": text[len(ids):]}
    return {"shapes": shapes, "cases": cases}


if __name__ == "__main__":
    found = {text["model_type"]: golden(text) for text in (GPT_NEOX, OPT)}
    target = Path(__file__).with_name("openflamingo.json.gz")
    target.write_bytes(gzip.compress((json.dumps(found, indent=None, separators=(",", ":")) + "\n").encode(), 9, mtime=0))
