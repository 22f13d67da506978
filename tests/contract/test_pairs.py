"""Any encoder, any projector, any tiny LM: builds, learns eight samples by heart, saves,
reloads, answers. The LMs take turns, so that every LM meets every encoder and every projector.

That every encoder meets every projector, builds, runs and sees is `test_fitting.py`'s; learning and answering are tried on as few pairs as
let every LM meet all parts, and on all of them with `SENSORIUM_PAIRS=full`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sensorium.api import Model, load
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.sample import Sample, parse_sample
from sensorium.encoders import ENCODERS
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.training.objectives.next_token import next_token_losses

COMMON = {"vocab_size": 512, "max_position_embeddings": 256, "eos_token_id": 0, "bos_token_id": 0,
          "pad_token_id": 0}  # fmt: skip
LMS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    "qwen2": {"model_type": "qwen2", "hidden_size": 32, "intermediate_size": 64,
              "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "tie_word_embeddings": True},
    "opt": {"model_type": "opt", "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "word_embed_proj_dim": 32, "dropout": 0.0},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256,
             "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}  # fmt: skip
WORDS = ("red", "green", "blue", "grey", "pink", "gold", "teal", "navy")


def samples() -> list[Sample]:
    made: list[Sample] = []
    for i, word in enumerate(WORDS):
        # Different textures as well as colours: a convolution sees both.
        color = tuple((37 * (i + 1) * (k + 2)) % 256 for k in range(3))
        image = Image.new("RGB", (32, 32), color)
        image.paste((255 - color[0], color[1], 30 * i), (0, 0, 4 + 3 * i, 30 - 2 * i))
        made.append(parse_sample({"messages": [
            {"role": "user", "content": [{"type": "image", "image": image}]},
            {"role": "assistant", "content": word}]}))  # fmt: skip
    return made


def config_for(encoder: str, projector: str, lm: str, **more: Any) -> ModelConfig:
    return ModelConfig(
        lanes={
            "image": LaneConfig(
                encoder=ENCODERS.find(encoder).tiny(), projector=INPUT_PROJECTORS.find(projector).tiny()
            )
        },
        backbone=CausalLMConfig(arch=COMMON | LMS[lm], tokenizer="bytes"),
        template="caption",
        **more,
    )


def fits(encoder: str, projector: str) -> bool:
    """Pixel shuffle refuses grids with tokens outside them, and says so."""
    from sensorium.core.errors import ConfigError

    try:
        INPUT_PROJECTORS.find(projector).tiny().out_grid(ENCODERS.find(encoder).tiny().grid())
    except ConfigError:
        return False
    return True


ALL = [
    (e, p, list(LMS)[(i + j) % len(LMS)])
    for i, e in enumerate(ENCODERS)
    for j, p in enumerate(INPUT_PROJECTORS)
    if fits(e, p)
]


def few(pairs: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Pairs that bring every encoder and every projector to every LM that all pairs bring them to: those first that bring both."""
    chosen: list[tuple[str, str, str]] = []
    met: set[tuple[str, str]] = set()
    for wanted in (2, 1):
        for encoder, projector, lm in pairs:
            new = {(encoder, lm), (projector, lm)} - met
            if len(new) >= wanted:
                chosen.append((encoder, projector, lm))
                met |= new
    return chosen


PAIRS = ALL if os.environ.get("SENSORIUM_PAIRS") == "full" else few(ALL)


def test_every_llm_meets_every_part() -> None:
    met = {(part, lm) for encoder, projector, lm in PAIRS for part in (encoder, projector)}
    assert met == {(part, lm) for part in (*ENCODERS, *INPUT_PROJECTORS) for lm in LMS}


def learn_by_heart(model: Any, processor: Processor, *, steps: int = 300) -> float:
    batch = collate([[processor.encode(s)] for s in samples()], processor.tokenizer.pad_id)
    # The encoder stays frozen, as in alignment; its features are computed once.
    with torch.no_grad():
        batch.media["image"].features = model.encode("image", batch.media["image"])
    learning = [p for n, p in model.named_parameters() if not n.startswith("encoders.")]
    optimiser = torch.optim.AdamW(learning, lr=4e-3, weight_decay=0.0, fused=True)
    loss = float("inf")
    for _ in range(steps):
        optimiser.zero_grad()
        losses = next_token_losses(model, batch)
        mean = losses.total / losses.count
        mean.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        loss = float(mean.detach())
        if loss < 0.02:
            break
    return loss


@pytest.mark.parametrize(("encoder", "projector", "lm"), PAIRS, ids=lambda v: str(v))
def test_pair_learns_saves_and_answers(encoder: str, projector: str, lm: str, tmp_path: Path) -> None:
    config = config_for(encoder, projector, lm)
    model, tokenizer = build_pretrained(config)
    processor = Processor(config, tokenizer)
    loss = learn_by_heart(model, processor)
    assert loss < 0.1, f"loss stayed at {loss:.3f}"
    before = Model(model, tokenizer)
    save_model(model, tokenizer, tmp_path / "m", learnt=set())
    after = load(tmp_path / "m")
    right = 0
    for sample, word in zip(samples(), WORDS, strict=True):
        messages = [sample.messages[0].to_json()]
        answer = after.respond(messages, max_tokens=8)
        assert answer == before.respond(messages, max_tokens=8)
        right += answer == word
    assert right == len(WORDS)
