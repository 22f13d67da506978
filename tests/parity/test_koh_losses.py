"""FROMAGe's and GILL's losses beside their own forward passes, written a second time over the same weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.sample import parse_sample
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.collate import collate
from sensorium.recipes import TINY_FORMS
from sensorium.training.objectives.retrieve import RetrieveConfig

CAPTIONS = ("a red ball", "green hills, far away", "a blue boat at sea")


@pytest.fixture(scope="module", params=["fromage", "gill"])
def tiny(request: pytest.FixtureRequest) -> tuple[str, Model]:
    if request.param == "gill":
        pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    return request.param, Model(*build_pretrained(TINY_FORMS.find(request.param)().model))


def batch_of(model: Model) -> Any:
    processor = model.processor.with_template("captioned")
    rows: list[Any] = []
    for i, caption in enumerate(CAPTIONS):
        picture = Image.new("RGB", (40 + 9 * i, 32), (80 * i, 90, 255 - 80 * i))
        rows.append([processor.encode(parse_sample({"messages": [
            {"role": "user", "content": [{"type": "image", "image": picture}]}, {"role": "assistant", "content": caption}]}))])  # fmt: skip
    return collate(rows, model.tokenizer.pad_id)


def losses_of(model: Model, joined: float) -> dict[str, float]:
    config = RetrieveConfig(joined=joined, draw=float("image_other" in model.network.hands))
    objective: Any = config.build(model.network, model.processor.with_template("captioned"), ())
    with torch.no_grad():
        losses = objective(model.network, batch_of(model))
    terms = {name: value for name, value in losses.parts.items() if name != "found"}
    assert float(losses.total) / losses.count == pytest.approx(sum(terms.values()), rel=1e-5)
    return terms


def padded(rows: list[Tensor], fill: float = 0.0) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)


class Original:
    """`FromageModel.forward` and `GILLModel.forward` in their modes; their tokenizer would put </s> in front of texts."""

    def __init__(self, model: Model) -> None:
        self.network = model.network
        self.lm: Any = model.network.backbone.lm
        self.signals = list(model.processor.signals["image"])
        self.captions = [torch.tensor(model.tokenizer.encode(text)) for text in CAPTIONS]
        pixels = batch_of(model).media["image"].pixels_NCHW
        encoder: Any = model.network.encoders["image"]
        self.pooler = encoder.tower(encoder.normalise(pixels)).pooler_output
        projector: Any = model.network.projectors["image"]
        self.visual = projector.linear(self.pooler).reshape(len(CAPTIONS), -1, self.lm.config.hidden_size)
        heads = [head for head in model.network.hands.values() if hasattr(head, "logit_scale")]
        self.head: Any = heads[0]

    def run(self, rows: list[tuple[Tensor, Tensor]]) -> Any:
        """The LLM on embeddings and labels; what is padded has neither."""
        return self.lm(inputs_embeds=padded([embeds for embeds, _ in rows]), labels=padded([labels for _, labels in rows], -100).long(),
                       output_hidden_states=True)  # fmt: skip

    def captioning(self, *, concat: bool) -> float:
        embed = self.lm.get_input_embeddings()
        rows = [(torch.cat([visual, embed(ids)]), torch.cat([torch.full((len(visual),), -100), ids]))
                for visual, ids in zip(self.visual, self.captions, strict=True)]  # fmt: skip
        if concat:
            rows = [(torch.cat([rows[0][0], rows[1][0]]), torch.cat([rows[0][1], rows[1][1]])), rows[2]]
        return float(self.run(rows).loss)

    def retrieval(self) -> tuple[float, Tensor, Tensor]:
        """The loss of the text, and states and embeddings of the signal tokens."""
        embed = self.lm.get_input_embeddings()
        tokens = torch.tensor(self.signals)
        ids = [torch.cat([caption, tokens]) for caption in self.captions]
        labels = [torch.cat([caption, tokens[:1], torch.full((len(tokens) - 1,), -100)]) for caption in self.captions]
        output = self.run([(embed(one), label) for one, label in zip(ids, labels, strict=True)])
        states = [row[len(one) - len(tokens) : len(one)] for row, one in zip(output.hidden_states[-1], ids, strict=True)]
        return float(output.loss), torch.stack(states), embed(tokens).expand(len(ids), -1, -1)

    def contrast(self, states: Tensor) -> float:
        text = F.linear(states[:, 0], self.head.text.weight, self.head.text.bias)
        visual = F.linear(self.pooler, self.head.image.weight, self.head.image.bias)
        text, visual = text / text.norm(dim=1, keepdim=True), visual / visual.norm(dim=1, keepdim=True)
        logits = self.head.logit_scale.exp() * visual @ text.t()
        own = torch.arange(len(logits))
        return float((F.cross_entropy(logits.t(), own) + F.cross_entropy(logits, own)) / 2.0)


@torch.no_grad()
def test_losses_are_the_originals(tiny: tuple[str, Model], record: Callable[..., None]) -> None:
    name, model = tiny
    original = Original(model)
    text, states, embeddings = original.retrieval()
    expected = {"caption": original.captioning(concat=False), "text": text, "contrast": original.contrast(states)}
    if name == "gill":
        made = model.network.hands["image"](states + embeddings)
        wanted = model.network.generators["image"].encode_text(CAPTIONS)  # pyright: ignore[reportAttributeAccessIssue]
        expected["condition"] = float((((made - wanted) ** 2).sum(dim=-1) ** 0.5).mean())
    together = expected | {"caption": original.captioning(concat=True)}
    assert together["caption"] != pytest.approx(expected["caption"], abs=1e-4)
    for joined, terms in ((0.0, expected), (1.0, together)):
        found = losses_of(model, joined)
        assert found.keys() == terms.keys()
        for term, value in terms.items():
            record(name, "loss", ours=torch.tensor(found[term]), theirs=torch.tensor(value))
