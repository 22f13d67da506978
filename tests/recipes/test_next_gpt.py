"""NExT-GPT's prompts, tokens and distances beside those of its own code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.api import Model
from sensorium.core.sample import parse_sample
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.collate import collate
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.next_gpt_parts import ADDED, AUD, IMG, VID
from sensorium.text.chat import TEMPLATES, render
from sensorium.training.objectives.generate import GenerateConfig

KINDS = {"image": IMG, "video": VID, "audio": AUD}


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


@torch.no_grad()
def test_distances_are_the_originals() -> None:
    """`_train_with_mode`: states and embeddings of the signal tokens, which an answer's caption stands in front of, and the length
    of each difference to what the generator's text encoder makes of the caption."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    model = Model(*build_pretrained(TINY_FORMS.find("next-gpt")().model))
    lm, captions = model.network.backbone.lm, {"image": "a cat", "video": "a running dog", "audio": "rain"}
    rows = [[model.processor.encode(asked(kind, caption))] for kind, caption in captions.items()]
    objective = GenerateConfig().build(model.network, model.processor, ())
    parts = objective(model.network, collate(rows, model.tokenizer.pad_id)).parts
    for (kind, caption), [example] in zip(captions.items(), rows, strict=True):
        ids = torch.tensor([example.input_ids])
        signals = [model.tokenizer.special_id(token) for token in KINDS[kind]]
        start = example.input_ids.index(signals[0])
        assert example.input_ids[start : start + len(signals)] == signals
        states = lm(input_ids=ids, output_hidden_states=True).hidden_states[-1][:, start : start + len(signals)]
        mapped = model.network.hands[kind](states + lm.get_input_embeddings()(ids[:, start : start + len(signals)]))
        wanted = model.network.generators[kind].encode_text([caption])  # pyright: ignore[reportAttributeAccessIssue]
        distance = (((mapped - wanted) ** 2).sum(dim=-1) ** 0.5).mean()
        assert parts[f"condition.{kind}"] == pytest.approx(float(distance), abs=1e-5)
