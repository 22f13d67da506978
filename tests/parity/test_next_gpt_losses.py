"""NExT-GPT's losses beside those of its own code, written a second time over the same weights: words, and the distance of each medium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.sample import parse_sample
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.collate import collate
from sensorium.recipes import TINY_FORMS
from sensorium.training.objectives.generate import GenerateConfig

CAPTIONS = {"image": "a cat", "video": "a running dog", "audio": "rain"}


def asked(kind: str) -> Any:
    return parse_sample({"messages": [
        {"role": "user", "content": "generate a caption"},
        {"role": "assistant", "content": [{"type": "text", "text": CAPTIONS[kind]}, {"type": kind, kind: "y"}]},
    ]})  # fmt: skip


@pytest.mark.parametrize("name", ["next-gpt", "next-gpt-1.5"])
@torch.no_grad()
def test_losses_are_the_originals(name: str, record: Callable[..., None]) -> None:
    """`_train_with_mode`, or `compute_image_loss` and its like: states and embeddings of the signal tokens (of version 1.5 with the spaces
    between), which an answer's caption stands in front of, and the length of each difference to what the generator's text encoder
    makes of the caption; and the mean over all words that are learned, signals among them."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    model = Model(*build_pretrained(TINY_FORMS.find(name)().model))
    lm: Any = model.network.backbone.lm
    rows = [[model.processor.encode(asked(kind))] for kind in CAPTIONS]
    objective = GenerateConfig().build(model.network, model.processor, ())
    found = objective(model.network, collate(rows, model.tokenizer.pad_id))
    scores_KV, words_K = [], []
    for (kind, caption), [example] in zip(CAPTIONS.items(), rows, strict=True):
        ids, learned = torch.tensor([example.input_ids]), torch.tensor(example.learn[1:])
        signals = list(model.processor.signals[kind])
        number = {"image": 4, "video": 24, "audio": 8}[kind]
        assert len(signals) == (number if name == "next-gpt" else 2 * number - 1)
        start = example.input_ids.index(signals[0])
        assert example.input_ids[start : start + len(signals)] == signals
        assert all(example.learn[start : start + len(signals)])
        said = lm(input_ids=ids, output_hidden_states=True)
        states = said.hidden_states[-1][:, start : start + len(signals)]
        mapped = model.network.hands[kind](states + lm.get_input_embeddings()(ids[:, start : start + len(signals)]))
        wanted = model.network.generators[kind].encode_text([caption])  # pyright: ignore[reportAttributeAccessIssue]
        distance = (((mapped - wanted) ** 2).sum(dim=-1) ** 0.5).mean()
        record(name, "loss", ours=torch.tensor(found.parts[f"condition.{kind}"]), theirs=distance)
        scores_KV.append(said.logits[0, :-1][learned])
        words_K.append(ids[0, 1:][learned])
    words = F.cross_entropy(torch.cat(scores_KV), torch.cat(words_K))
    record(name, "loss", ours=torch.tensor(found.parts["next_token"]), theirs=words)
