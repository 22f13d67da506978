"""Do the published recipes write prompts as the originals do?

The expected texts follow the originals' own code, which each template names.
"""

from __future__ import annotations

from typing import Any

import pytest

from sensorium.core.sample import parse_sample
from sensorium.recipes import RECIPES
from sensorium.text.chat import TEMPLATES, render
from sensorium.training.config import Recipe

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
EMU2 = "You are a helpful assistant, dedicated to delivering comprehensive and meticulous responses."
EMU2_SHORT = "You are a helpful assistant, dedicated to provide concise and efficient answers."

ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)


def written(template: str, *, learned: bool = False) -> str:
    """Two turns about a picture as text; a medium is `IMG`."""
    sample = parse_sample({"messages": [
        {"role": "user", "content": [{"type": "image", "image": "x.png"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Big?"},
        {"role": "assistant", "content": "Yes."},
    ]})  # fmt: skip
    pieces = list(render(sample.messages, TEMPLATES[template]))
    if learned:
        pieces = [piece for piece in pieces if piece.learn]
    return "".join("IMG" if piece.kind == "media" else str(piece.value) for piece in pieces)


# The begin-of-text token in front of each is the tokenizer's.
CHATS = {
    "llava-1.5": f"{SYSTEM} USER: IMG\nWhat? ASSISTANT: A cat.{{eos}}USER: Big? ASSISTANT: Yes.{{eos}}",
    "llava-med": "[INST] IMG\nWhat? [/INST] A cat. {eos}[INST] Big? [/INST] Yes. {eos}",
    "llava-next": f"{SYSTEM} USER: IMG\nWhat? ASSISTANT: A cat.{{eos}}USER: Big? ASSISTANT: Yes.{{eos}}",
    "llava-next-mistral": "[INST] IMG\nWhat? [/INST] A cat. {eos}[INST] Big? [/INST] Yes. {eos}",
    "minigpt-v2": "[INST] <Img>IMG</Img> What?  [/INST] A cat.{eos}[INST] Big?  [/INST] Yes.{eos}",
    "mplug-owl": "The following is a conversation between a curious human and AI assistant. The "
    "assistant gives helpful, detailed, and polite answers to the user's questions.\nHuman: IMG\n"
    "Human: What?\nAI: A cat.{eos}\nHuman: Big?\nAI: Yes.{eos}",
    "llama-adapter": f"{ALPACA}\n\n### Instruction:\nIMGWhat?\n\n### Response:A cat.{{eos}}"
    "### Instruction:\nBig?\n\n### Response:Yes.{eos}",
    "emu3": "You are a helpful assistant. USER: IMGWhat?. ASSISTANT:A cat.{eos}USER: Big?. ASSISTANT:Yes.{eos}",
    "chameleon": "IMGWhat?<reserved08706>A cat.{eos}Big?<reserved08706>Yes.{eos}",
    "janus": "You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language.\n\n<|User|>: <begin_of_image>IMG<end_of_image>\nWhat?\n\n"
    "<|Assistant|>: A cat.{eos}<|User|>: Big?\n\n<|Assistant|>: Yes.{eos}",
    # model/llava/conversation.py, llava_v1, and chat.py.
    "lisa": f"{HUMAN} USER: <im_start>IMG<im_end>\nWhat? ASSISTANT: A cat.{{eos}}USER: Big? ASSISTANT: Yes.{{eos}}",
    # Emu1's inference.py asks one question; further turns are as Emu2's.
    "emu": "[USER]: [IMG]IMG[/IMG]What? [ASSISTANT]: A cat.{eos}[USER]: Big? [ASSISTANT]: Yes.{eos}",
    **dict.fromkeys(("emu2", "emu2-gen"), "[IMG]IMG[/IMG]What?A cat.{eos}Big?Yes.{eos}"),
    "emu2-chat": f"{EMU2} [USER]: [IMG]IMG[/IMG]What? [ASSISTANT]: A cat.{{eos}}[USER]: Big? [ASSISTANT]: Yes.{{eos}}",
    # torchdata_sft.py; what is said behind ASSISTANT: begins with a space to its tokenizer.
    "seed-llama": "USER: IMGWhat?\nASSISTANT: A cat.\nUSER: Big?\nASSISTANT: Yes.{eos}",
    "seed-llama-14b": "[INST] IMGWhat? [/INST]\nA cat.\n[INST] Big? [/INST]\nYes.{eos}",
    "kosmos-2": "<image>IMG</image>What?A cat.{eos}Big?Yes.{eos}",
    "minigpt4": "###Human: <Img>IMG</Img> What? ###Assistant: A cat.###"
    "###Human: Big? ###Assistant: Yes.###",
}


@pytest.mark.parametrize("name", CHATS)
def test_chat(name: str) -> None:
    template = RECIPES.find(name)().model.template
    assert written(template) == CHATS[name]
    assert TEMPLATES[template].bos


def test_qwen_is_told_that_it_helps() -> None:
    """The text that Qwen2's own chat template writes, and no begin of text."""
    template = RECIPES.find("llava-onevision")().model.template
    assert written(template) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nIMG\nWhat?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>user\nBig?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
    )
    assert not TEMPLATES[template].bos


def test_qwen_vl_marks_pictures() -> None:
    """The text that the chat template of Qwen2-VL's Instruct models writes."""
    template = RECIPES.find("qwen2-vl")().model.template
    assert written(template) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|>IMG<|vision_end|>What?<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>user\nBig?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
    )
    assert not TEMPLATES[template].bos


def asked(template: str, *before: dict[str, Any]) -> str:
    """A question about a picture, to be answered, as text."""
    sample = parse_sample({"messages": [
        *before, {"role": "user", "content": [{"type": "image", "image": "x.png"}, {"type": "text", "text": "What?"}]}]})  # fmt: skip
    pieces = render(sample.messages, TEMPLATES[template], answer_next=True)
    return "".join("IMG" if piece.kind == "media" else str(piece.value) for piece in pieces)


def test_questions_end_where_the_originals_end_them() -> None:
    """Emu1/inference.py puts a text of its own in front, or nothing; SEED's scripts/seed_llama_inference_8B.py."""
    told = "You will be presented with an image: [IMG]ImageContent[/IMG]."
    assert asked("emu", {"role": "system", "content": told}) == f"{told} [USER]: [IMG]IMG[/IMG]What? [ASSISTANT]:"
    assert asked("emu") == "[USER]: [IMG]IMG[/IMG]What? [ASSISTANT]:"
    assert asked("emu2") == f"{EMU2} [USER]: [IMG]IMG[/IMG]What? [ASSISTANT]:"
    chat: Recipe = RECIPES.find("emu2-chat")()
    assert [getattr(rows, "system") for rows in chat.stages[0].data] == [EMU2_SHORT] * 10 + [None] * 6  # noqa: B009
    # Emu2/emu/chat.py, is_grounding: the token that asks for places is the last of the prompt.
    assert asked("emu2_ground") == f"{EMU2_SHORT} [USER]: [IMG]IMG[/IMG]What? [ASSISTANT]:<grounding>"
    assert asked("emu_document") == asked("emu2_document") == "[IMG]IMG[/IMG]What?"
    assert asked("seed_llama") == "USER: IMGWhat?\nASSISTANT:"
    # The 14B's, as gradio_demo/conversation.py and scripts/seed_llama_inference_14B.py write them.
    kind = {"role": "system", "content": "Be kind."}
    assert asked("seed_llama_14b", kind) == "<<SYS>>\nBe kind.\n<</SYS>>\n\n[INST] IMGWhat? [/INST]\n"
    assert asked("lisa") == f"{HUMAN} USER: <im_start>IMG<im_end>\nWhat? ASSISTANT:"


@pytest.mark.parametrize(("template", "plain"), [("emu2", " "), ("emu2_ground", None), ("emu2_document", "")])
def test_emu2_answers_with_places_behind_the_token_that_asks_for_them(template: str, plain: str | None) -> None:
    """It is what their code ends the prompt with: not learned."""
    place = {"type": "boxes", "boxes": [[1, 2, 3, 4]]}

    def answer(*content: Any) -> list[tuple[str, bool]]:
        sample = parse_sample({"messages": [{"role": "system", "content": "Be short."}, {"role": "assistant", "content": list(content)}]})
        pieces = [("PLACE" if piece.kind == "places" else str(piece.value), piece.learn) for piece in render(sample.messages, TEMPLATES[template])]
        begin = next(i for i, (value, _) in enumerate(pieces) if value == "[ASSISTANT]") + 2 if template != "emu2_document" else 1
        return pieces[begin:]

    asks, end = ("<grounding>", False), ("{eos}", True)
    assert answer({"type": "text", "text": "A cat"}, place) == [asks, ("A cat", True), ("PLACE", True), end]
    before = [asks] if plain is None else [(plain, True)] if plain else []
    assert answer({"type": "text", "text": "A cat"}) == [*before, ("A cat", True), end]


def test_what_is_learned() -> None:
    assert written("minigpt_v2", learned=True) == " A cat.{eos} Yes.{eos}"
    assert written("mplug_owl", learned=True) == "A cat.{eos}Yes.{eos}"
    assert written("qwen", learned=True) == "A cat.<|im_end|>\nYes.<|im_end|>\n"
    assert written("vicuna", learned=True) == " A cat.{eos} Yes.{eos}"
    assert written("mistral", learned=True) == " A cat. {eos} Yes. {eos}"
    assert written("minigpt4", learned=True) == "A cat.###Yes.###"
    assert written("lisa", learned=True) == written("emu", learned=True) == " A cat.{eos} Yes.{eos}"
    assert written("seed_llama", learned=True) == " A cat. Yes.{eos}"


def test_blip2_is_asked_one_question() -> None:
    sample = parse_sample({"messages": [
        {"role": "user", "content": [{"type": "image", "image": "x.png"}, {"type": "text", "text": "What?"}]},
    ]})  # fmt: skip
    pieces = render(sample.messages, TEMPLATES["question"], answer_next=True)
    text = "".join("IMG" if piece.kind == "media" else str(piece.value) for piece in pieces)
    assert text == "IMGQuestion: What? Short answer:"


@pytest.mark.parametrize("name", ["llava-v1", "llava-1.5", "llava-next", "llava-onevision", "llava-med",
                                  "minigpt4", "blip2-opt"])
def test_alignment_shows_no_instruction_and_learns_caption_and_line_break(name: str) -> None:
    sample = parse_sample({"messages": [
        {"role": "user", "content": [
            {"type": "image", "image": "x.png"}, {"type": "text", "text": "Describe the picture."}]},
        {"role": "assistant", "content": "A cat."},
    ]})  # fmt: skip
    stage = next(s for s in RECIPES.find(name)().stages if s.objective.kind == "caption")
    template = TEMPLATES[stage.objective.template]
    pieces = list(render(sample.messages, template))
    assert [(p.kind, p.learn) for p in pieces] == [("media", False), ("text", True), ("text", True)]
    assert "".join(str(p.value) for p in pieces[1:]) == "A cat.\n"
    assert template.bos


def test_flamingo_closes_what_belongs_to_each_picture() -> None:
    """As train/data.py writes a page; text before the first picture is not learned."""
    image = {"type": "image", "image": "x.png"}
    sample = parse_sample({"messages": [{"role": "assistant", "content": [
        {"type": "text", "text": "First"}, image, {"type": "text", "text": "one"}, image,
        {"type": "text", "text": "two"}]}]})  # fmt: skip
    pieces = list(render(sample.messages, TEMPLATES["openflamingo"]))
    text = "".join("<image>" if p.kind == "media" else str(p.value) for p in pieces)
    assert text == "First<image>one<|endofchunk|><image>two<|endofchunk|>"
    learned = "".join(str(p.value) for p in pieces if p.learn)
    assert learned == "one<|endofchunk|>two<|endofchunk|>"


def test_flamingo_is_asked_by_examples() -> None:
    image = {"type": "image", "image": "x.png"}
    shots = [{"role": "user", "content": [image, {"type": "text", "text": "Output:"}]},
             {"role": "assistant", "content": "a cat"}]  # fmt: skip
    sample = parse_sample({"messages": [*shots, shots[0]]})
    pieces = list(render(sample.messages, TEMPLATES["openflamingo"], answer_next=True))
    text = "".join("<image>" if p.kind == "media" else str(p.value) for p in pieces)
    assert text == "<image>Output:a cat<|endofchunk|><image>Output:"
    # Behind the end of a chunk and before the next picture nothing is learned.
    again = parse_sample({"messages": [*shots, {"role": "user", "content": "And?"}, shots[1]]})
    learned = [str(p.value) for p in render(again.messages, TEMPLATES["openflamingo"]) if p.learn]
    assert learned == ["a cat", "<|endofchunk|>"]


@pytest.mark.parametrize(("template", "around"), [("document", ()), *((name, ("[IMG]", "[/IMG]")) for name in ("emu_document", "emu2_document"))])
def test_documents_are_learned_as_a_whole(template: str, around: tuple[str, ...]) -> None:
    """Emu's marks of pictures, between which they stand, are not learned where a picture is read (Emu1/models/modeling_llama.py)."""
    sample = parse_sample({"messages": [{"role": "assistant", "content": [
        {"type": "text", "text": "First "}, {"type": "image", "image": "x.png"},
        {"type": "text", "text": " then."}]}]})  # fmt: skip
    pieces = list(render(sample.messages, TEMPLATES[template]))
    marks = [("control", mark, False) for mark in around]
    assert [(p.kind, "IMG" if p.kind == "media" else p.value, p.learn) for p in pieces] == [
        ("text", "First ", True), *marks[:1], ("media", "IMG", False), *marks[1:], ("text", " then.", True), ("control", "{eos}", True)
    ]  # fmt: skip
