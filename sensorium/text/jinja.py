"""A chat template as Jinja text, for programs that read one: GGUF files of llama.cpp, transformers' tokenizers.

It is written, never run here. The begin of text is left out, because readers put it there themselves; so is what a
template writes around a medium: llama.cpp puts the medium's mark into the message before the template sees it.
"""

from __future__ import annotations

import json

from sensorium.core.sample import ROLES
from sensorium.text.template import EOS, ChatTemplate

CONTENT = "{{ message['content'] }}"


def as_jinja(template: ChatTemplate) -> str | None:
    """The template over `messages` (`role`, `content` a string), `eos_token` and `add_generation_prompt`.

    None where turns do not simply follow each other: media in front of everything, chunks, prompts that are not written,
    or an encoder that reads to an end.
    """
    if template.media_first or template.chunk_end or not template.user_text or template.bos_behind:
        return None
    if EOS in template.after["user"]:
        return None
    parts: list[str] = []
    if template.default_system:
        said = template.before["system"] + template.default_system + template.after["system"]
        parts.append("{% if not messages or messages[0]['role'] != 'system' %}" + _said(said) + "{% endif %}")
    parts.append("{% for message in messages %}")
    for number, role in enumerate(ROLES):
        prefix = template.answer_prefix if role == "assistant" else ""
        parts.append(f"{{% {'elif' if number else 'if'} message['role'] == '{role}' %}}")
        after = _said(template.after[role])
        if role == "assistant" and template.between is not None:
            after = "{% if loop.last %}" + after + "{% else %}" + _said(template.between) + "{% endif %}"
        parts += [_said(template.before[role] + prefix), CONTENT, after]
    parts.append("{% endif %}{% endfor %}")
    parts.append("{% if add_generation_prompt %}" + _said(template.before["assistant"]) + "{% endif %}")
    return "".join(parts)


def _said(text: str) -> str:
    """Text that Jinja writes as it is, whatever stands in it."""
    pieces = [f"{{{{ {json.dumps(piece)} }}}}" if piece else "" for piece in text.split(EOS)]
    return "{{ eos_token }}".join(pieces)
