"""FROMAGe and GILL beside their own forward passes, written a second time over the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.batch import TilePlan
from sensorium.core.hands import Making
from sensorium.core.sample import parse_sample
from sensorium.generators.found_pictures import FoundPictures, RetrievalIndexConfig
from sensorium.generators.retrieval_index import RetrievalIndex
from sensorium.interop.assemble import build_pretrained
from sensorium.media.image import load_image
from sensorium.model.learning import Learn, set_learning
from sensorium.processing.collate import collate
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.fromage_parts import EMBEDDING
from sensorium.recipes.sizes import part_sizes
from sensorium.training.objectives.retrieve import Retrieve, RetrieveConfig
from sensorium.training.optimiser import rate

CAPTIONS = ("a red ball", "green hills, far away", "a blue boat at sea")
FEW = Making(steps=2)


@pytest.fixture(scope="module", params=["fromage", "gill"])
def tiny(request: pytest.FixtureRequest) -> Model:
    if request.param == "gill":
        pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    return Model(*build_pretrained(TINY_FORMS.find(request.param)().model))


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
        self.network, self.lm = model.network, model.network.backbone.lm
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
def test_losses_are_the_originals(tiny: Model) -> None:
    original = Original(tiny)
    text, states, embeddings = original.retrieval()
    expected = {"caption": original.captioning(concat=False), "text": text, "contrast": original.contrast(states)}
    if "image_other" in tiny.network.hands:
        made = tiny.network.hands["image"](states + embeddings)
        wanted = tiny.network.generators["image"].encode_text(CAPTIONS)  # pyright: ignore[reportAttributeAccessIssue]
        expected["condition"] = float((((made - wanted) ** 2).sum(dim=-1) ** 0.5).mean())
    assert losses_of(tiny, joined=0.0) == pytest.approx(expected, abs=1e-5)
    joined = losses_of(tiny, joined=1.0)
    assert joined == pytest.approx(expected | {"caption": original.captioning(concat=True)}, abs=1e-5)
    assert joined["caption"] != pytest.approx(expected["caption"], abs=1e-4)


def test_learnt_embeddings_stay_as_long_as_the_others(tiny: Model) -> None:
    rows = tuple(range(-len(tiny.processor.signals["image"]), 0))
    weight = tiny.network.backbone.embedding.weight
    before = weight.detach().clone()
    objective = Retrieve(RetrieveConfig(), tiny.processor, ("image", None))
    set_learning(tiny.network, (Learn(part="hands.image", lr=1.0),))
    objective.stepped(tiny.network)
    assert torch.equal(weight, before)  # They do not learn.
    set_learning(tiny.network, (Learn(part="backbone", module=EMBEDDING, rows=rows, lr=1.0),))
    objective.stepped(tiny.network)
    assert torch.equal(weight[: rows[0]], before[: rows[0]])
    mean = before[: rows[0]].norm(dim=1).mean()
    torch.testing.assert_close(weight.detach()[rows[0] :].norm(dim=1), mean.expand(len(rows)))
    tiny.network.requires_grad_(False)


@pytest.mark.parametrize("name", ["fromage", "gill"])
@pytest.mark.parametrize("size", [(640, 427), (97, 401), (224, 224)])
def test_pictures_are_clips(name: str, size: tuple[int, int]) -> None:
    """`get_pixel_values_for_model` is CLIP's own processor."""
    from transformers import CLIPImageProcessor

    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    lane = RECIPES.find(name)().model.lanes["image"]
    cut = lane.resolution.cut(load_image(picture), TilePlan(), lane.encoder.preprocess())
    mean, std = (np.array(v, dtype=np.float32) for v in (lane.encoder.mean, lane.encoder.std))
    ours = ((cut[0] / 255.0 - mean) / std).transpose(2, 0, 1)
    theirs = CLIPImageProcessor()(picture, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_ids_and_what_learns_are_the_originals() -> None:
    """50266 is [RET]'s id, and [IMG0]'s (gill_opt/model_args.json); 5.5 M and 50.1 M numbers learn."""
    for name, tokens, learning in (("fromage", 1, 5_513_729), ("gill", 8, 50_096_385)):
        recipe = RECIPES.find(name)()
        backbone = recipe.model.backbone
        assert backbone.vocab_size - tokens == 50266
        assert backbone.added_tokens[1:] == recipe.model.hands["image"].signals
        parts = {learn.part for learn in recipe.stages[0].learns}
        sizes = part_sizes(recipe.model)
        assert sum(sizes[part] for part in parts - {"backbone"}) + tokens * 4096 == learning


def test_the_rate_falls_by_stairs() -> None:
    """GILL's: ten epochs of 2,000 steps, a tenth every five, counted behind the warm-up."""
    schedule = RECIPES.find("gill")().stages[0].schedule
    steps = (0, 1999, 11_999, 12_000, 19_999)
    assert [rate(schedule, step, 20_000) for step in steps] == pytest.approx([1 / 2000, 1, 1, 0.1, 0.1])


def test_what_is_decided_is_done(tmp_path: Any) -> None:
    """Without an index it draws; with one it does what it has learnt to decide."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    model = Model(*build_pretrained(TINY_FORMS.find("gill")().model))
    choice: Any = model.network.hands["image_choice"]
    ids = [*model.tokenizer.encode("here "), *model.processor.signals["image"]]
    found = np.full((9, 7, 3), 77, np.uint8)
    Image.fromarray(found).save(tmp_path / "found.png")

    def made(other: bool) -> Any:
        with torch.no_grad():
            choice.out.weight.zero_()
            choice.out.bias.copy_(torch.tensor([0.0, 1.0] if other else [1.0, 0.0]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model.engine, "generate", lambda *_, **__: [ids])
            text, picture = model.answer("a ball", making=FEW).content
        assert text.value == "here"
        return np.asarray(picture.value)

    drawn = made(other=True)
    assert drawn.shape == (64, 64, 3)
    config = RetrievalIndexConfig.tiny()
    index = RetrievalIndex.build(["found.png"], np.ones((1, config.width), np.float32), tmp_path)
    model.network.generators.put("image_other", FoundPictures(config, index))
    assert np.array_equal(made(other=True), found)
    assert np.array_equal(made(other=False), drawn)
