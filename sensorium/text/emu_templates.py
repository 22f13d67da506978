"""Chat templates of Emu and Emu2 (github.com/baaivision/Emu)."""

from __future__ import annotations

from sensorium.core.sample import ROLES
from sensorium.text.template import EOS, ChatTemplate

CONCISE = "You are a helpful assistant, dedicated to provide concise and efficient answers."
"""What Emu2-Chat is told in front of questions that want a word, or a place (arXiv:2312.13286, C.1; Emu2/emu/constants.py)."""
GROUNDING = "<grounding>"
# Emu1/inference.py, and models/modeling_emu.py for the marks around a picture. The text that it puts in front of a question about a
# picture is a system message.
_EMU = ChatTemplate(
    before={"system": "", "user": "[USER]: ", "assistant": "[ASSISTANT]:"},
    after={"system": " ", "user": " ", "assistant": EOS},
    answer_prefix=" ",
    bos=True,
    control=(EOS, "[USER]", "[ASSISTANT]", "[IMG]", "[/IMG]"),
    media_before="[IMG]",
    media_after="[/IMG]",
)
# Emu2/emu/chat.py and demo/frontend/libs/meta.py.
_EMU2 = _EMU.model_copy(
    update={
        "default_system": "You are a helpful assistant, dedicated to delivering comprehensive and meticulous responses.",
        "located": GROUNDING,
        "control": (*_EMU.control, GROUNDING),
    }
)
# Text and pictures in any order, learned as a whole. The marks are around each picture that is only read; those of pictures in
# answers are the model's own signals.
_DOCUMENT = ChatTemplate(
    before=dict.fromkeys(ROLES, ""),
    after={"system": "", "user": "", "assistant": EOS},
    bos=True,
    control=(EOS, "[IMG]", "[/IMG]"),
    media_before="[IMG]",
    media_after="[/IMG]",
)
EMU_TEMPLATES: dict[str, ChatTemplate] = {
    "emu": _EMU,
    "emu2": _EMU2,
    # The same file, `is_grounding`: the token that asks for places ends the prompt.
    "emu2_ground": _EMU2.model_copy(
        update={
            "default_system": CONCISE,
            "before": _EMU.before | {"assistant": f"[ASSISTANT]:{GROUNDING}"},
            "answer_prefix": "",
            "located": "",
        }
    ),
    "emu_document": _DOCUMENT,
    "emu2_document": _DOCUMENT.model_copy(update={"located": GROUNDING, "control": (*_DOCUMENT.control, GROUNDING)}),
}
