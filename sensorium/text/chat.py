"""Chat templates as data: how messages become text, and which text is learned.

Foreign Jinja templates are never executed; a template here is a handful of strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.core.naming import did_you_mean
from sensorium.core.sample import PLACE_KINDS, ROLES, Message, Part
from sensorium.text.tokenizer import Tokenizer

EOS = "{eos}"
TemplateName = Literal[
    "auto", "chatml", "qwen", "smol", "vicuna", "llama3", "mistral", "minigpt4", "minigpt_v2",
    "pair", "picture_of", "blip_vqa",
    "mplug_owl", "qwen2_vl", "alpaca", "cogvlm", "cogvlm_vqa", "cogvlm_base", "question", "plain",
    "seq2seq", "caption", "caption_line", "document",
]  # fmt: skip


class ChatTemplate(Config):
    """Strings around each turn; `{special}` pieces are listed in `control`."""

    before: dict[str, str]
    after: dict[str, str]
    bos: bool = False
    default_system: str | None = None
    media_before: str = ""
    media_after: str = ""
    answer_prefix: str = ""
    """Put in front of an answer, as part of it: the space after `ASSISTANT:`."""
    media_first: bool = False
    """Media of a message stand in front of all else, what the template writes before it included."""
    user_text: bool = True
    """False: of what a user says, only the media are written."""
    control: tuple[str, ...] = ()
    """Control tokens that may occur in the strings above; `{eos}` is the tokenizer's own."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of template output: plain text, a control token, a medium, or places in a picture."""

    kind: Literal["text", "control", "media", "places"]
    value: str | Part
    learn: bool


_CHATML_BEFORE = {role: f"<|im_start|>{role}\n" for role in ROLES}
_CHATML_AFTER = dict.fromkeys(ROLES, "<|im_end|>\n")

TEMPLATES: dict[str, ChatTemplate] = {
    "chatml": ChatTemplate(
        before=_CHATML_BEFORE,
        after=_CHATML_AFTER,
        media_after="\n",
        control=("<|im_start|>", "<|im_end|>"),
    ),
    # chatml with the system message of Qwen2, as LLaVA-OneVision uses it
    # (github.com/LLaVA-VL/LLaVA-NeXT, train.py, preprocess_qwen).
    "qwen": ChatTemplate(
        before=_CHATML_BEFORE,
        after=_CHATML_AFTER,
        default_system="You are a helpful assistant.",
        media_after="\n",
        control=("<|im_start|>", "<|im_end|>"),
    ),
    # The same with marks around each picture (Qwen2-VL, chat_template.json).
    "qwen2_vl": ChatTemplate(
        before=_CHATML_BEFORE,
        after=_CHATML_AFTER,
        default_system="You are a helpful assistant.",
        media_before="<|vision_start|>",
        media_after="<|vision_end|>",
        control=("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    ),
    # chatml without a line break after a medium: shorter rows for small models.
    "smol": ChatTemplate(
        before=_CHATML_BEFORE, after=_CHATML_AFTER, control=("<|im_start|>", "<|im_end|>")
    ),
    # Vicuna v1.1 as LLaVA-1.5 uses it (github.com/haotian-liu/LLaVA, conversation.py).
    "vicuna": ChatTemplate(
        before={"system": "", "user": "USER: ", "assistant": "ASSISTANT:"},
        after={"system": " ", "user": " ", "assistant": "{eos}"},
        answer_prefix=" ",
        bos=True,
        default_system="A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        media_after="\n",
        control=("{eos}",),
    ),
    "llama3": ChatTemplate(
        before={
            r: f"<|start_header_id|>{r}<|end_header_id|>\n\n" for r in ROLES
        },
        after=dict.fromkeys(ROLES, "<|eot_id|>"),
        bos=True,
        media_after="\n",
        control=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    # Mistral-Instruct as LLaVA-Med uses it (github.com/microsoft/LLaVA-Med, conversation.py).
    "mistral": ChatTemplate(
        before={"system": "", "user": "[INST] ", "assistant": ""},
        after={"system": "", "user": " [/INST]", "assistant": " {eos}"},
        answer_prefix=" ",
        bos=True,
        media_after="\n",
        control=("{eos}",),
    ),
    # github.com/Vision-CAIR/MiniGPT-4, train_configs/minigpt4_stage2_finetune.yaml. The hashes that
    # end an answer are plain text.
    "minigpt4": ChatTemplate(
        before={"system": "", "user": "###Human: ", "assistant": "###Assistant: "},
        after={"system": "", "user": " ", "assistant": "###"},
        bos=True,
        media_before="<Img>",
        media_after="</Img> ",
    ),
    # The same repository, minigpt_v2.py and datasets/: the question begins with its task in
    # brackets, `[vqa]`, which rows bring along, and has a space behind it.
    "minigpt_v2": ChatTemplate(
        before={"system": "", "user": "[INST] ", "assistant": ""},
        after={"system": "", "user": "  [/INST]", "assistant": "{eos}"},
        answer_prefix=" ",
        bos=True,
        media_before="<Img>",
        media_after="</Img> ",
        control=("{eos}",),
    ),
    # github.com/X-PLUG/mPLUG-Owl, mPLUG-Owl/README.md: each picture is a turn of its own.
    "mplug_owl": ChatTemplate(
        before={"system": "", "user": "\nHuman: ", "assistant": "\nAI: "},
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        default_system="The following is a conversation between a curious human and AI assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        media_after="\nHuman: ",
        control=("{eos}",),
    ),
    # Stanford Alpaca's, as LLaMA-Adapter uses it (github.com/OpenGVLab/LLaMA-Adapter,
    # alpaca_finetuning_v1/finetuning.py, a prompt without `input`).
    "alpaca": ChatTemplate(
        before={"system": "", "user": "### Instruction:\n", "assistant": "### Response:"},
        after={"system": "\n\n", "user": "\n\n", "assistant": "{eos}"},
        bos=True,
        default_system="Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.",
        control=("{eos}",),
    ),
    # github.com/THUDM/CogVLM, utils/utils/language.py: the picture stands in front of everything.
    "cogvlm": ChatTemplate(
        before={"system": "", "user": " [INST] ", "assistant": ""},
        after={"system": "", "user": " [/INST] ", "assistant": "{eos}"},
        bos=True,
        media_first=True,
        control=("{eos}",),
    ),
    # The same file: short answers, for which one question at a time is asked.
    "cogvlm_vqa": ChatTemplate(
        before={"system": "", "user": "Question: ", "assistant": ""},
        after={"system": "", "user": " Short answer:", "assistant": "{eos}"},
        bos=True,
        media_first=True,
        control=("{eos}",),
    ),
    # The same file: caption, or text to be continued, behind the picture.
    "cogvlm_base": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        media_first=True,
        control=("{eos}",),
    ),
    # One question about one picture in front of it, as BLIP-2 is asked
    # (github.com/salesforce/LAVIS, vqav2_zeroshot_opt_eval.yaml).
    "question": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": " Short answer:", "assistant": "\n"},
        answer_prefix=" ",
        bos=True,
        media_after="Question: ",
    ),
    # For language models without chat tokens.
    "plain": ChatTemplate(
        before={"system": "", "user": "User: ", "assistant": "Assistant:"},
        after={"system": "\n", "user": "\n", "assistant": "{eos}"},
        answer_prefix=" ",
        media_after="\n",
        control=("{eos}",),
    ),
    # Encoder-decoders: an end of text closes what the encoder reads, and the answer.
    "seq2seq": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "\n", "user": "{eos}", "assistant": "{eos}"},
        control=("{eos}",),
    ),
    # Alignment by captions: picture, then caption, no roles (LLaVA stage 1's `plain`).
    "caption": ChatTemplate(
        before={"system": "", "user": "", "assistant": ""},
        after={"system": "\n", "user": "", "assistant": "{eos}"},
        control=("{eos}",),
    ),
    # The same as LLaVA and MiniGPT-4 write it: begin of text, picture, caption, line break. The
    # instruction that LLaVA's rows have beside the picture is not shown.
    "caption_line": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "\n"},
        bos=True,
        user_text=False,
    ),
    # A picture and a text that are compared: the text with its begin and its end.
    "pair": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        user_text=False,
        control=("{eos}",),
    ),
    # BLIP's captions (github.com/salesforce/BLIP, configs/caption_coco.yaml).
    "picture_of": ChatTemplate(
        before={"system": "", "user": "", "assistant": "a picture of "},
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        user_text=False,
        control=("{eos}",),
    ),
    # BLIP's questions (github.com/salesforce/BLIP, models/blip_vqa.py): what the encoder reads, closed,
    # and the answer.
    "blip_vqa": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "{eos}", "assistant": "{eos}"},
        bos=True,
        control=("{eos}",),
    ),
    # Text and pictures in any order, learned as a whole: Flamingo's and IDEFICS' web pages.
    "document": ChatTemplate(
        before=dict.fromkeys(ROLES, ""),
        after={"system": "", "user": "", "assistant": "{eos}"},
        bos=True,
        control=("{eos}",),
    ),
}


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


def render(
    messages: Sequence[Message], template: ChatTemplate, *, answer_next: bool = False
) -> Iterator[Piece]:
    """The pieces of a conversation; assistant text and its closing are learned.

    Args:
        answer_next: end with the opening of an assistant turn, for generation.
    """
    if template.default_system and (not messages or messages[0].role != "system"):
        yield from _literal(template.before["system"], template, learn=False)
        yield Piece("text", template.default_system, learn=False)
        yield from _literal(template.after["system"], template, learn=False)
    for message in messages:
        learn = message.role == "assistant"
        content: Sequence[Part] = message.content
        if template.media_first:
            yield from _content([p for p in content if p.is_media], template, message.role)
            content = [p for p in content if not p.is_media]
        yield from _literal(template.before[message.role], template, learn=False)
        if learn and template.answer_prefix:
            yield Piece("text", template.answer_prefix, learn=True)
        yield from _content(content, template, message.role)
        yield from _literal(template.after[message.role], template, learn=learn)
    if answer_next:
        yield from _literal(template.before["assistant"], template, learn=False)


def _content(parts: Sequence[Part], template: ChatTemplate, role: str) -> Iterator[Piece]:
    learn = role == "assistant"
    for part in parts:
        if part.is_media:
            yield from _literal(template.media_before, template, learn=False)
            yield Piece("media", part, learn=False)
            yield from _literal(template.media_after, template, learn=False)
        elif part.type == "text":
            if part.value and (template.user_text or role != "user"):
                yield Piece("text", part.value, learn=learn)
        elif part.type in PLACE_KINDS:
            if template.user_text or role != "user":
                yield Piece("places", part, learn=learn)
        else:
            raise ConfigError(
                f"part type {part.type!r} in a conversation for a model that answers in text",
                fix="use a model with an output head for it",
            )


def _literal(text: str, template: ChatTemplate, *, learn: bool) -> Iterator[Piece]:
    """Split template text at its control tokens."""
    while text:
        hits = [(text.find(t), t) for t in template.control if t in text]
        if not hits:
            yield Piece("text", text, learn)
            return
        position, token = min(hits)
        if position:
            yield Piece("text", text[:position], learn)
        yield Piece("control", token, learn)
        text = text[position + len(token) :]
