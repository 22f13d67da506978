"""Separate turns: several questions about one picture share its tokens and change nothing."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_model import WINDOW, WINDOWED, make, samples
from torch import Tensor

from sensorium.api import Model
from sensorium.core.batch import Batch, Example
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import Sample, parse_sample
from sensorium.data.check import check_source
from sensorium.data.formats import open_path
from sensorium.data.source import ListSource
from sensorium.evaluation.benchmarks.vqa_file import VqaFile
from sensorium.media.augment import Augmentation
from sensorium.processing import pictures as pictures_module
from sensorium.processing.collate import collate
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.objectives.vocabulary import learned_texts

PAIRS = (("what is the thing in it?", "a cat"), ("and where?", "on the mat, asleep"), ("so?", "no"))
CASES = [(f, "llama") for f in ("splice", "anyres", "gated")] + [
    ("splice", lm) for lm in ("opt", "gpt2", *WINDOWED)
] + [("gated", "gpt2"), ("gated", "mistral"), ("native", "qwen2_vl"), ("visual_expert", "llama")]  # fmt: skip


def picture(seed: int = 0) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 28, 3), dtype=np.uint8)
    return {"type": "image", "image": Image.fromarray(pixels)}


def talk(*pairs: tuple[str, str], media: int = 1, system: str = "") -> Sample:
    messages: list[Any] = [{"role": "system", "content": system}] if system else []
    for i, (question, answer) in enumerate(pairs):
        front = [picture(m) for m in range(media)] if i == 0 else []
        messages += [{"role": "user", "content": [*front, {"type": "text", "text": question}]},
                     {"role": "assistant", "content": answer}]  # fmt: skip
    return parse_sample({"id": "s", "messages": messages, "separate_turns": True})


def alone(sample: Sample) -> list[Sample]:
    """Every pair as an ordinary Sample."""
    return [replace(sample, messages=m, separate_turns=False) for m in sample.conversations()]


def places(example: Example, pair: int) -> list[int]:
    """Where the tokens of a pair alone stand in the Example."""
    return [i for i, branch in enumerate(example.branches) if branch in (0, pair)]


def rows(model: Model) -> tuple[list[Example], list[tuple[Tensor, Example]]]:
    """Examples with separate turns between ordinary ones; and, for each conversation alone,
    its tokens' places in the row of them all."""
    mixed = [talk(*PAIRS, system="be brief"), samples()[0], talk(*PAIRS[:2], media=2), samples()[1],
             talk(*PAIRS, media=0)]  # fmt: skip
    whole = [model.processor.encode(s) for s in mixed]
    found: list[tuple[Tensor, Example]] = []
    start = 0
    for sample, example in zip(mixed, whole, strict=True):
        for k, one in enumerate(alone(sample), start=1):
            where = places(example, k) if example.branches else range(len(example))
            found.append((torch.tensor([start + p for p in where]), model.processor.encode(one)))
        start += len(example)
    return whole, found


@pytest.mark.parametrize(("fusion", "lm"), CASES)
@torch.no_grad()
def test_every_pair_gets_what_it_gets_alone(fusion: str, lm: str) -> None:
    model = make(fusion, lm)
    whole, found = rows(model)
    packed = model.network(collate([whole], 0)).hidden_BTD[0]
    assert len(found) == 10
    if lm in WINDOWED:
        assert min(len(example) for _, example in found) > WINDOW
    for where, example in found:
        expected = model.network(collate([[example]], 0)).hidden_BTD[0]
        torch.testing.assert_close(packed[where], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            model.network.logits(packed[where]), model.network.logits(expected), atol=1e-5, rtol=1e-5
        )
    # A row of its own, padded, is no other case.
    padded = model.network(collate([[e] for e in whole], 0)).hidden_BTD
    start = 0
    for b, example in enumerate(whole):
        end = start + len(example)
        torch.testing.assert_close(padded[b, : len(example)], packed[start:end], atol=1e-5, rtol=1e-5)
        start = end


@pytest.mark.parametrize(("fusion", "lm"), [("splice", "llama"), ("gated", "llama"), ("splice", "gemma2")])
def test_losses_and_gradients_are_the_sums_over_the_pairs(fusion: str, lm: str) -> None:
    model = make(fusion, lm)
    model.network.eval()

    def learn(batches: list[Batch]) -> tuple[float, int, dict[str, Tensor]]:
        model.network.zero_grad()
        total, count = 0.0, 0
        for batch in batches:
            losses = next_token_losses(model.network, batch)
            losses.total.backward()
            total, count = total + float(losses.total.detach()), count + losses.count
        grads = {n: p.grad.clone() for n, p in model.network.named_parameters() if p.grad is not None}
        return total, count, grads

    whole, found = rows(model)
    total, count, grads = learn([collate([whole[:2], whole[2:]], 0)])
    total_alone, count_alone, grads_alone = learn([collate([[e]], 0) for _, e in found])
    assert count == count_alone == sum(sum(e.learn) for _, e in found)
    assert total == pytest.approx(total_alone, rel=1e-5)
    assert grads.keys() == grads_alone.keys()
    for name, expected in grads_alone.items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(grads[name], expected, atol=1e-5 * max(1.0, scale), rtol=1e-4)


@torch.no_grad()
def test_a_pair_sees_no_other() -> None:
    """Changing one pair changes nothing in another, though they stand in one row."""
    model = make("splice")
    one, other = (model.processor.encode(talk(("first?", a), *PAIRS[1:])) for a in ("a cat", "a dog"))
    a, b = (model.network(collate([[e]], 0)).hidden_BTD[0] for e in (one, other))
    changed = [k for k in range(4) if not torch.equal(a[torch.tensor(one.branches) == k],
                                                      b[torch.tensor(one.branches) == k])]  # fmt: skip
    assert changed == [1]


PROCESSOR = make("splice").processor
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=2, max_size=5), st.integers(0, 2), TEXT,
       st.sampled_from(["chatml", "smol", "plain", "vicuna"]))  # fmt: skip
def test_tails_behind_the_prefix_are_the_pairs_alone(
    pairs: list[tuple[str, str]], media: int, system: str, template: str
) -> None:
    processor = PROCESSOR.with_template(template)
    sample = talk(*pairs, media=media, system=system)
    merged = processor.encode(sample)
    batch = collate([[merged]], 0)
    assert batch.packed
    assert merged.branches == sorted(merged.branches)
    assert set(merged.branches) == {0, *range(1, len(pairs) + 1)} - ({0} if not media else set())
    for k, one in enumerate(alone(sample), start=1):
        expected, where = processor.encode(one), places(merged, k)
        for name in ("input_ids", "learn", "media_index"):
            assert [getattr(merged, name)[p] for p in where] == getattr(expected, name)
        assert batch.positions_BT[0, where].tolist() == list(range(len(expected)))
        assert expected.branches == []
        assert merged.slots == expected.slots
        for kind, found in expected.media.items():
            assert torch.equal(merged.media[kind].pixels_NCHW, found.pixels_NCHW)
            assert merged.media[kind].plans == found.plans


def test_a_picture_is_decoded_and_augmented_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    real = pictures_module.load_image

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(pictures_module, "load_image", counted)
    sample = talk(*PAIRS, media=2)

    def augmented(sample: Sample) -> Tensor:
        augmentation = Augmentation(random.Random(5), mirror=True)
        return PROCESSOR.encode(sample, augmentation=augmentation).media["image"].pixels_NCHW

    pixels = augmented(sample)
    assert len(calls) == 2
    assert torch.equal(pixels, augmented(alone(sample)[0]))


def test_pairs_without_room_are_left_out_whole() -> None:
    whole = PROCESSOR.encode(talk(*PAIRS))
    ends = [len(places(whole, 1)), len(whole.branches) - whole.branches.count(3), len(whole)]
    first = alone(talk(*PAIRS))[0]
    for length in range(whole.branches.count(0), len(whole) + 1):
        try:
            cut = PROCESSOR.encode(talk(*PAIRS), max_length=length)
        except DataError:
            with pytest.raises(DataError, match="first answer begins"):
                PROCESSOR.encode(first, max_length=length)
            continue
        kept = sum(end <= length for end in ends)
        assert cut.truncated_tokens == len(whole) - len(cut)
        if kept > 1:
            assert cut.branches == whole.branches[: ends[kept - 1]]
            assert cut.input_ids == whole.input_ids[: ends[kept - 1]]
        else:
            expected = PROCESSOR.encode(first, max_length=length)
            expected.truncated_tokens = cut.truncated_tokens
            assert cut.branches == []
            assert (cut.input_ids, cut.learn, cut.slots) == (expected.input_ids, expected.learn, expected.slots)


def test_one_pair_is_an_ordinary_sample() -> None:
    sample = talk(PAIRS[0])
    example = PROCESSOR.encode(sample)
    assert example.branches == []
    assert example.input_ids == PROCESSOR.encode(alone(sample)[0]).input_ids
    assert not collate([[example]], 0).packed


def test_the_last_question_is_asked_afresh() -> None:
    sample = talk(*PAIRS, system="be brief")
    expected = PROCESSOR.prompt(alone(sample)[-1].messages[:-1])
    for messages in (sample.messages[:-1], sample.messages):
        got = PROCESSOR.encode(replace(sample, messages=messages), answer_next=True)
        assert got.input_ids == expected.input_ids
        assert got.branches == []
        assert torch.equal(got.media["image"].pixels_NCHW, expected.media["image"].pixels_NCHW)


TEXT_PART = {"type": "text", "text": "what?"}
USER, ANSWER = {"role": "user", "content": "what?"}, {"role": "assistant", "content": "that"}
SYSTEM = {"role": "system", "content": "be brief"}


@pytest.mark.parametrize(
    ("messages", "match"),
    [([USER, USER, ANSWER], r"message 2: .*role 'user'; expected 'assistant'"),
     ([ANSWER, USER], r"message 1: .*role 'assistant'; expected 'user'"),
     ([USER, ANSWER, SYSTEM, USER, ANSWER], r"message 3: .*role 'system'"),
     ([SYSTEM], r"message 1: .*without an answer"),
     ([USER, ANSWER, USER], r"message 3: .*without an answer"),
     ([{"role": "user", "content": [TEXT_PART, picture()]}, ANSWER], "behind text.*only at the beginning"),
     ([USER, ANSWER, {"role": "user", "content": [picture(), TEXT_PART]}, ANSWER], "later message"),
     ([{"role": "system", "content": [picture(), TEXT_PART]}, USER, ANSWER], "system's")],
)  # fmt: skip
def test_what_cannot_stand_apart_is_named(messages: list[Any], match: str) -> None:
    sample = parse_sample({"messages": messages, "separate_turns": True})
    with pytest.raises(DataError, match=match):
        PROCESSOR.encode(sample)


def test_an_answer_right_behind_the_picture_is_named() -> None:
    processor = PROCESSOR.with_template("caption")
    with pytest.raises(DataError, match=r"pair 2: .*right behind the media.*give the question a text"):
        processor.encode(talk(("what?", "a cat"), ("", "a dog")))
    assert max(processor.encode(talk(*PAIRS)).branches) == len(PAIRS)


def test_prefixes_that_differ_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def fickle(text: str) -> list[int]:
        calls.append(text)
        return [len(calls)]

    model = make("splice")
    monkeypatch.setattr(model.processor.tokenizer, "encode", fickle)
    with pytest.raises(DataError, match=r"pair 2: .*same tokens; expected the first \d+ tokens"):
        model.processor.encode(talk(*PAIRS, system="be brief"))


@pytest.mark.parametrize("value", [1, "true", None, []])
def test_the_flag_is_true_or_false(value: Any) -> None:
    with pytest.raises(DataError, match=r"'separate_turns' is .*expected true or false"):
        parse_sample({"messages": [USER, ANSWER], "separate_turns": value})


def test_the_flag_goes_through_files(tmp_path: Path) -> None:
    value = {"id": "a", "messages": [USER, ANSWER, USER, {"role": "assistant", "content": "this"}],
             "separate_turns": True}  # fmt: skip
    sample = parse_sample(json.loads(json.dumps(parse_sample(value).to_json())))
    assert sample == parse_sample(value)
    assert sample.to_json()["separate_turns"] is True
    assert "separate_turns" not in replace(sample, separate_turns=False).to_json()
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(value))
    assert open_path(file)[0].separate_turns
    # A benchmark asks what an answer would see: the last question alone.
    item = VqaFile(path=str(file)).items()[0]
    assert [m.text for m in item.request.messages] == ["what?"]
    assert item.gold == ("this",)


def test_data_check_counts_what_is_left_out() -> None:
    good, bad = talk(*PAIRS), parse_sample({"messages": [USER], "separate_turns": True})
    whole = len(PROCESSOR.encode(good))
    report = check_source(ListSource("s", [good, bad]), PROCESSOR, max_length=whole - 1, workers=1)
    assert report.lengths == [whole]
    tail = len(places(PROCESSOR.encode(good), 3)) - PROCESSOR.encode(good).branches.count(0)
    assert report.truncated == [("s[0]", tail)]
    assert len(report.problems) == 1
    assert report.problems[0].startswith("s[1]: message 1: ")


def test_words_of_pairs_stay_apart() -> None:
    processor = PROCESSOR.with_template("caption")
    batch = collate([[processor.encode(talk(("what?", "cat"), ("where?", "mat")))]], 0)
    assert learned_texts(batch, processor) == ["cat mat"]


def test_layers_that_carry_a_state_refuse_separate_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("splice")
    monkeypatch.setattr(model.network.backbone.lm.config, "layer_types", ["linear_attention"], raising=False)
    with pytest.raises(ConfigError, match=r"separate turns.*leave separate_turns out"):
        model.network(collate([[model.processor.encode(talk(*PAIRS))]], 0))


def test_an_array_of_samples_keeps_the_flag(tmp_path: Path) -> None:
    row = {"id": "a", "separate_turns": True, "messages": [
        {"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2"}]}  # fmt: skip
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row]), encoding="utf-8")
    sample = open_path(file, "auto", None)[0]
    assert len(sample.conversations()) == 2
