"""Chat templates by name: how messages become text, and which text is learned.

Foreign Jinja templates are never executed; a template here is a handful of strings.
"""

from __future__ import annotations

from sensorium.core.errors import ConfigError
from sensorium.core.naming import did_you_mean
from sensorium.text.render import Piece, render
from sensorium.text.template import EOS, ChatTemplate
from sensorium.text.templates import TEMPLATES, TemplateName
from sensorium.text.tokenizer import Tokenizer

__all__ = ["EOS", "TEMPLATES", "ChatTemplate", "Piece", "TemplateName", "choose_template", "control_id", "render",
           "stop_ids"]  # fmt: skip


def choose_template(name: str, tokenizer: Tokenizer) -> ChatTemplate:
    """The template called `name`; `auto` picks by the tokenizer's control tokens.

    Raises:
        ConfigError: the name is unknown or the tokenizer lacks its control tokens.
    """
    if name == "auto":
        if tokenizer.has("<|im_start|>"):
            name = "chatml"
        elif tokenizer.has("<|start_header_id|>"):
            name = "llama3"
        else:
            name = "plain"
    if name not in TEMPLATES:
        raise ConfigError(f"unknown chat template {name!r}", fix=did_you_mean(name, TEMPLATES))
    template = TEMPLATES[name]
    for token in template.control:
        control_id(token, tokenizer)
    return template


def control_id(token: str, tokenizer: Tokenizer) -> int:
    """Id of a control token of a template."""
    return tokenizer.eos_id if token == EOS else tokenizer.special_id(token)


def stop_ids(template: ChatTemplate, tokenizer: Tokenizer) -> set[int]:
    """Ids that end an answer: end of text, and the token that closes a turn."""
    closing = {t for t in template.control if t in template.after["assistant"]}
    return {tokenizer.eos_id} | {control_id(token, tokenizer) for token in closing}
