"""NExT-GPT's prompts and tokens beside those of its own code (losses: tests/parity/test_next_gpt_losses.py)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.api import Model
from sensorium.core.hands import MadeKind
from sensorium.core.sample import parse_sample
from sensorium.inference.making import Maker
from sensorium.interop.assemble import build_pretrained
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.next_gpt_parts import ADDED, WORDS_15
from sensorium.text.chat import TEMPLATES, render


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
