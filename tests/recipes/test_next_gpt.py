"""NExT-GPT's prompts, tokens and distances beside those of its own code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.api import Model
from sensorium.core.hands import MadeKind
from sensorium.core.sample import parse_sample
from sensorium.inference.making import Maker
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.collate import collate
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.next_gpt_parts import ADDED, WORDS_15
from sensorium.text.chat import TEMPLATES, render
from sensorium.training.objectives.generate import GenerateConfig


@pytest.fixture(scope="module")
def spaced() -> Model:
    torch.manual_seed(1)
    return Model(*build_pretrained(TINY_FORMS.find("next-gpt-1.5")().model))


def asked(kind: str, caption: str, *, seen: bool = False) -> Any:
    picture = [{"type": "image", "image": "x.png"}] if seen else []
    return parse_sample({"messages": [
        {"role": "user", "content": [*picture, {"type": "text", "text": "generate a caption"}]},
        {"role": "assistant", "content": [{"type": "text", "text": caption}, *([{"type": kind, kind: "y"}] if kind else [])]},
    ]})  # fmt: skip


def test_prompts_are_the_originals() -> None:
    """`prompt_wrap` with `build_one_instance_stage_1`; `</s>` in front of all is the tokenizer's."""
    pieces = list(render(asked("", "a cat", seen=True).messages, TEMPLATES["next_gpt"]))
    text = "".join("IMAGE" if piece.kind == "media" else str(piece.value) for piece in pieces)
    assert text == "### Human: <Img>IMAGE</Img> generate a caption\n### Assistant: a cat\n###"
    assert "".join(str(piece.value) for piece in pieces if piece.learn) == "a cat\n###"


def test_tokens_are_added_in_the_originals_order() -> None:
    """`_add_image_token`, `_add_video_token`, `_add_audio_token`."""
    backbone = RECIPES.find("next-gpt")().model.backbone
    expected = ["<Img>", "</Img>", *(f"[IMG{i}]" for i in range(4)), "<Vid>", "</Vid>", *(f"[VID{i}]" for i in range(24)),
                "<Aud>", "</Aud>", *(f"[AUD{i}]" for i in range(8))]  # fmt: skip
    assert list(backbone.added_tokens) == list(ADDED) == expected
    assert backbone.vocab_size == 32000 + len(expected)


def test_version_15_speaks_as_vicuna_v1_does() -> None:
    """`preprocess_v1` of a row of cc3m_comprehension.json, and `preprocess_multimodal` of one of cc3m_generation.json."""
    recipe = RECIPES.find("next-gpt-1.5")()
    pieces = list(render(asked("", "a cat", seen=True).messages, TEMPLATES[recipe.model.template]))
    text = "".join("IMAGE" if piece.kind == "media" else str(piece.value) for piece in pieces)
    assert text == ("A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite "
                    "answers to the user's questions. USER: IMAGE\ngenerate a caption ASSISTANT: a cat{eos}")  # fmt: skip
    # A space is LLaMA's part of the word behind it.
    assert "".join(str(piece.value) for piece in pieces if piece.learn) == " a cat{eos}"
    backbone = recipe.model.backbone
    assert list(backbone.added_tokens) == list(WORDS_15) == [
        *(f"<image_{i:02d}>" for i in range(4)), *(f"<video_{i:02d}>" for i in range(24)), *(f"<audio_{i:02d}>" for i in range(8))]  # fmt: skip
    assert backbone.vocab_size == 32036
    assert " ".join(recipe.model.hands["image"].signals) == "<image_00> ▁ <image_01> ▁ <image_02> ▁ <image_03>"


def test_spaces_stand_between_signals(spaced: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """In rows, where they are learned, and in answers, which go on behind a first signal; other spaces of the text are its own."""
    processor, tokenizer = spaced.processor, spaced.tokenizer
    space = tokenizer.encode(" ")[0]
    example = processor.encode(asked("image", "a cat"))
    [wanted] = example.wanted
    run = slice(wanted.start, wanted.start + 7)
    words = [tokenizer.special_id(f"<image_{i:02d}>") for i in range(4)]
    assert example.input_ids[run] == [words[0], space, words[1], space, words[2], space, words[3]]
    assert all(example.learn[run])
    assert wanted.count == 7
    # Whatever the model would say, a begun picture is whole.
    again = torch.tensor([words[0]])
    monkeypatch.setattr("sensorium.inference.engine.Sampler", lambda *_: lambda logits, said: again)
    prompt = processor.prompt(asked("", "a cat").messages[:1])
    said = spaced.engine.generate([prompt], max_tokens=7)
    assert said == [example.input_ids[run]]
    ids = [*tokenizer.encode("so it is"), *said[0]]
    kinds: frozenset[MadeKind] = frozenset()
    parts = Maker(spaced.network, processor, kinds=kinds).parts(prompt, ids, asked("", "a cat"))
    assert [(part.type, part.value) for part in parts] == [("text", "so it is")]


@pytest.mark.parametrize("name", ["next-gpt", "next-gpt-1.5"])
@torch.no_grad()
def test_distances_are_the_originals(name: str) -> None:
    """`_train_with_mode`, or `compute_image_loss` and its like: states and embeddings of the signal tokens (of version 1.5 with the spaces
    between), which an answer's caption stands in front of, and the length of each difference to what the generator's text encoder
    makes of the caption."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    model = Model(*build_pretrained(TINY_FORMS.find(name)().model))
    lm, captions = model.network.backbone.lm, {"image": "a cat", "video": "a running dog", "audio": "rain"}
    rows = [[model.processor.encode(asked(kind, caption))] for kind, caption in captions.items()]
    objective = GenerateConfig().build(model.network, model.processor, ())
    parts = objective(model.network, collate(rows, model.tokenizer.pad_id)).parts
    for (kind, caption), [example] in zip(captions.items(), rows, strict=True):
        ids = torch.tensor([example.input_ids])
        signals = list(model.processor.signals[kind])
        number = {"image": 4, "video": 24, "audio": 8}[kind]
        assert len(signals) == (number if name == "next-gpt" else 2 * number - 1)
        start = example.input_ids.index(signals[0])
        assert example.input_ids[start : start + len(signals)] == signals
        states = lm(input_ids=ids, output_hidden_states=True).hidden_states[-1][:, start : start + len(signals)]
        mapped = model.network.hands[kind](states + lm.get_input_embeddings()(ids[:, start : start + len(signals)]))
        wanted = model.network.generators[kind].encode_text([caption])  # pyright: ignore[reportAttributeAccessIssue]
        distance = (((mapped - wanted) ** 2).sum(dim=-1) ** 0.5).mean()
        assert parts[f"condition.{kind}"] == pytest.approx(float(distance), abs=1e-5)
