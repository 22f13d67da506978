"""Chat templates as Jinja text: what it renders is what our own renderer writes."""

from __future__ import annotations

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from sensorium.core.sample import ROLES, Message, Part
from sensorium.text.jinja import as_jinja
from sensorium.text.render import render
from sensorium.text.template import EOS
from sensorium.text.templates import TEMPLATES

TALKS = {
    "one question": [("user", "What is it?")],
    "with an order": [("system", "Be short."), ("user", "What is it?")],
    "several turns": [("user", "a {{ b }} {% raw %}"), ("assistant", "\"it's\" \\n\n é"), ("user", "3"), ("assistant", "4")],
}
# Turns do not simply follow each other.
OTHERS = {
    "cogvlm", "cogvlm_vqa", "cogvlm_base", "question", "flamingo", "openflamingo", "caption_line", "pair", "picture_of",
    "blip_vqa", "seq2seq", "caption_behind", "bare", "captioned",
}  # fmt: skip


def ours(name: str, talk: list[tuple[str, str]], *, answer_next: bool) -> str:
    messages = [Message(role, (Part("text", text),)) for role, text in talk]  # pyright: ignore[reportArgumentType]
    pieces = render(messages, TEMPLATES[name], answer_next=answer_next)
    return "".join("</s>" if p.value == EOS else str(p.value) for p in pieces)


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - OTHERS))
def test_it_writes_what_we_write(name: str, talk: str) -> None:
    text = as_jinja(TEMPLATES[name])
    assert text is not None
    # As transformers sets it up.
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(text)
    messages = [{"role": role, "content": said} for role, said in TALKS[talk]]
    for answer_next in (False, True):
        got = jinja.render(messages=messages, eos_token="</s>", add_generation_prompt=answer_next)
        assert got == ours(name, TALKS[talk], answer_next=answer_next)


def test_others_are_left_out() -> None:
    assert {name for name, template in TEMPLATES.items() if as_jinja(template) is None} == OTHERS


def test_strings_of_a_template_are_never_read_as_jinja() -> None:
    odd = TEMPLATES["plain"].model_copy(update={"before": dict.fromkeys(ROLES, "{{ x }} {% if %} \"'\\ é\n")})
    text = as_jinja(odd)
    assert text is not None
    got = ImmutableSandboxedEnvironment().from_string(text).render(messages=[{"role": "user", "content": "c"}], eos_token="")
    assert got == odd.before["user"] + "c" + odd.after["user"]
