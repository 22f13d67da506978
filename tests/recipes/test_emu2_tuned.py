"""Emu2-Chat and Emu2-Gen go on from Emu2, and their rows are those of the published code."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sensorium.core.sample import parse_sample
from sensorium.data.config import FileSource
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.interop.start import start_from
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.text.byte_tokenizer import byte_tokenizer

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
PLACE = {"type": "boxes", "boxes": {"places": [[20, 10, 80, 40]], "phrase": "a cat"}}


def saved(folder: Path, name: str = "emu2") -> Path:
    torch.manual_seed(1)
    model, tokenizer = build_pretrained(TINY_FORMS.find(name)().model)
    save_model(model, tokenizer, folder, learnt=set())
    return folder


@needs_diffusers
@pytest.mark.parametrize("name", ["emu2-chat", "emu2-gen"])
def test_all_of_emu2_is_taken(name: str, tmp_path: Path) -> None:
    """Of Emu2-Chat all but the rows of its two roles."""
    before, _ = build_pretrained(TINY_FORMS.find("emu2")().model)
    folder = saved(tmp_path / "emu2")
    start_from(before, folder)
    torch.manual_seed(2)
    model, tokenizer = build_pretrained(TINY_FORMS.find(name)().model)
    own = {key: value.clone() for key, value in model.state_dict().items()}
    assert start_from(model, folder).new == []
    first = before.state_dict()
    for key, value in model.state_dict().items():
        known = len(first[key])
        assert torch.equal(value[:known], first[key]), key
        if len(value) > known:
            assert key.endswith(("embed_tokens.weight", "lm_head.weight"))
            assert len(value) == known + 2 == len(tokenizer)
            assert torch.equal(value[known:], own[key][known:])


@needs_diffusers
def test_words_that_another_model_added_are_not_taken_for_these(tmp_path: Path) -> None:
    """The last rows of Emu2-Chat's tables are roles, which Emu2 does not have; its LLM stays new then."""
    folder = saved(tmp_path / "chat", "emu2-chat")
    model, _ = build_pretrained(TINY_FORMS.find("emu2")().model)
    assert start_from(model, folder).new == ["backbone"]
    shuffled = TINY_FORMS.find("emu2-chat")().model
    tokens = shuffled.backbone.added_tokens
    backbone = shuffled.backbone.model_copy(update={"added_tokens": (tokens[1], tokens[0], *tokens[2:])})
    model, _ = build_pretrained(shuffled.model_copy(update={"backbone": backbone}))
    assert start_from(model, saved(tmp_path / "emu2")).new == ["backbone"]


def reader(name: str, template: str | None = None) -> Processor:
    """Of the published size: no weights are needed to write rows."""
    model = RECIPES.find(name)().model
    tokenizer = byte_tokenizer()
    tokenizer.add(model.backbone.added_tokens)
    return Processor(model, tokenizer, template=template)


@pytest.mark.parametrize(("name", "template", "tokens"), [("emu2-chat", "emu2", 256), ("emu2-chat", "emu2_ground", 256), ("emu2-gen", None, 64)])
def test_a_prompt_has_the_authors_tokens(name: str, template: str | None, tokens: int) -> None:
    """emu.py: each picture as so many `<image>` between its marks; chat.py, and README.md of what is to be drawn."""
    processor = reader(name, template)
    picture = {"type": "image", "image": Image.new("RGB", (100, 50))}
    asked = parse_sample({"messages": [{"role": "user", "content": [picture, {"type": "text", "text": "Where is it?"}]}]})
    found = processor.prompt(asked.messages)
    hole = processor.tokenizer.special_id("<image>")
    text = processor.tokenizer.decode(found.input_ids, keep_special=True)
    shown = "[IMG]" + "<image>" * tokens + "[/IMG]Where is it?"
    chats = {
        "emu2": "You are a helpful assistant, dedicated to delivering comprehensive and meticulous responses. "
        f"[USER]: {shown} [ASSISTANT]:",
        "emu2_ground": f"You are a helpful assistant, dedicated to provide concise and efficient answers. [USER]: {shown} [ASSISTANT]:<grounding>",
        None: shown,
    }
    assert text == chats[template]
    assert found.slots["image"] == [i for i, token in enumerate(found.input_ids) if token == hole]
    assert found.media["image"].pixels_NCHW.shape == (1, 3, 448, 448)


def test_places_are_tokens_of_the_published_vocabulary() -> None:
    """lm.py: `<grounding>` is the ninth token behind LLaMA's words, `<patch_index_0000>` the sixteenth, the roles are the last."""
    processor = reader("emu2-chat")
    sample = parse_sample({"messages": [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (100, 50))}, {"type": "text", "text": "Where?"}]},
        {"role": "assistant", "content": [PLACE]}]})  # fmt: skip
    found = processor.encode(sample)
    first = processor.tokenizer.special_id("[PAD]")
    # 20 and 80 of 100 pixels, 10 and 40 of 50, in parts of 224.
    behind = [token - first for token in found.input_ids if token >= first]
    assert behind[-10:] == [273, 8, 9, 10, 11, 15 + 45, 15 + 45, 15 + 179, 15 + 179, 12]
    # What asks for places is the prompt's.
    learned = [token - first for token, learn in zip(found.input_ids, found.learn, strict=True) if learn and token >= first]
    assert learned == behind[-8:]


def test_short_answers_are_asked_for_in_rows_without_a_system_message(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "2"}]
    own = {"role": "system", "content": "Say a number."}
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in (turns, [own, *turns])), encoding="utf-8")
    rows = RECIPES.find("emu2-chat")().stages[0].data[0]
    assert isinstance(rows, FileSource)
    source = rows.model_copy(update={"path": str(path)}).open()
    assert [source[i].messages[0].text for i in range(2)] == [
        "You are a helpful assistant, dedicated to provide concise and efficient answers.", "Say a number."]
    assert [len(source[i].messages) for i in range(2)] == [3, 3]
    assert source.where(1).endswith("rows.jsonl:2")  # pyright: ignore[reportAttributeAccessIssue]
