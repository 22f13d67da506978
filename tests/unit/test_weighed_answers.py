"""Several answers to a question: each learned with its weight, the question counted once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sensorium.api import Model
from sensorium.core.errors import DataError
from sensorium.core.sample import Sample, WeighedAnswer, parse_sample
from sensorium.data.loader import Loader, LoaderOptions, per_sample
from sensorium.data.mixture import MixtureOrder
from sensorium.data.source import JsonlSource
from sensorium.evaluation.benchmarks.vqa_file import VqaFile
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.answers import encode_rows
from sensorium.recipes.tiny import tiny_model
from sensorium.training.objectives.counting import PerSample
from sensorium.training.objectives.next_token import InstructConfig

ASKED = [{"role": "user", "content": "Which colour?"}]
SAID = ["red", "red", "crimson", "red", "dark red"]


@pytest.fixture
def model() -> Model:
    return Model(*build_pretrained(tiny_model()))


def sample(answers: Any, messages: Any = ASKED, **more: Any) -> Sample:
    return parse_sample({"messages": messages, "answers": answers, **more})


def test_what_annotators_said_is_weighed_by_their_shares() -> None:
    found = sample(SAID)
    assert [a.text for a in found.answers] == ["red", "crimson", "dark red"]
    assert [a.weight for a in found.answers] == pytest.approx([0.6, 0.2, 0.2])
    assert found.messages[-1].role == "assistant"
    assert found.messages[-1].text == "red"
    given = sample([{"text": "a", "weight": 1}, {"text": "b", "weight": 2.5}])
    assert given.answers == (WeighedAnswer("a", 1), WeighedAnswer("b", 2.5))
    assert given.messages[-1].text == "b"
    for one in (found, given):
        assert parse_sample(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"answers": []}, "'answers' is an empty list"),
        ({"answers": "red"}, "'answers' is str"),
        ({"answers": ["red", {"text": "blue", "weight": 1}]}, "answer 'red'"),
        ({"answers": [{"text": "red"}]}, "answer {'text': 'red'}"),
        ({"answers": [{"text": "red", "weight": 0}]}, "'red' with weight 0; expected a number above 0"),
        ({"answers": [{"text": "red", "weight": float("nan")}]}, "'red' with weight nan"),
        ({"answers": SAID, "separate_turns": True}, "separate turns"),
        ({"answers": SAID, "messages": [*ASKED, {"role": "assistant", "content": "red"}]}, "does not end with a question"),
    ],
)
def test_malformed_answers_are_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_sample({"messages": ASKED, **row}, where="row 3")
    assert said in str(caught.value)
    assert str(caught.value).startswith("row 3")


@pytest.mark.parametrize("splits", [False, True])
def test_each_answer_is_an_example(splits: bool, model: Model) -> None:
    """Also where every answer of a conversation is: what was answered before is one, once."""
    processor = model.processor
    processor.splits_answers = splits
    earlier = [{"role": "user", "content": "A cat?"}, {"role": "assistant", "content": "Yes."}]
    found = sample(SAID, [*earlier, *ASKED])
    made = encode_rows(processor, found)
    assert len(made) == 3 + splits
    assert [e.loss_weight for e in made[splits:]] == pytest.approx([0.6, 0.2, 0.2])
    for example, answer in zip(made[splits:], found.answers, strict=True):
        messages = [*earlier, *ASKED, {"role": "assistant", "content": answer.text}]
        alone = encode_rows(processor, parse_sample({"messages": messages}))[-1]
        assert (example.input_ids, example.learn) == (alone.input_ids, alone.learn)
    if splits:
        assert made[0].loss_weight == 1


def test_an_objective_that_weighs_nothing_takes_one_answer(model: Model) -> None:
    processor = model.processor
    processor.weighs_answers = False
    with pytest.raises(DataError, match="several answers to a question"):
        encode_rows(processor, sample(SAID))


@pytest.mark.parametrize("pack", [False, True])
def test_batches_keep_the_answers_of_a_question_together(pack: bool, model: Model, tmp_path: Path) -> None:
    """Their losses are those of the answers alone, each times its weight and its source's; questions are counted."""
    rows = [{"messages": ASKED, "answers": SAID}, {"messages": ASKED, "answers": ["blue"]},
            {"messages": ASKED, "answers": [f"shade {i}" for i in range(9)]}]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    source = JsonlSource(tmp_path / "rows.jsonl", None)
    options = LoaderOptions(batch_size=2, max_length=128, pack=pack, workers=2, seed=0,
                            loss_per="question", loss_weights=(0.5,))  # fmt: skip
    loader = Loader([source], MixtureOrder([3], [1.0], 0), model.processor, options)
    objective = PerSample(InstructConfig().build(model.network, SimpleNamespace(), []))  # type: ignore[arg-type]
    order, state = loader.order, loader.order.start()
    ahead = [order.next(state) for _ in range(40)]
    taken: list[Any] = []
    stream, found, seen, picks = loader.batches(order.start()), 0.0, 0.0, 0
    while picks < 6:
        loaded = next(stream)
        with torch.no_grad():
            losses = objective(model.network, loaded.batch)
        assert losses.count == pytest.approx(loaded.samples)
        taken += [ahead[number] for number in loaded.picks]
        found, seen, picks = found + float(losses.total), seen + losses.count, picks + loaded.samples
    stream.close()
    expected = [0.0, 0.0, 0.0]
    for number, row in enumerate(source[i] for i in range(3)):
        for answer in row.answers:
            scored = model.logits([*[m.to_json() for m in row.messages[:-1]],
                                   {"role": "assistant", "content": answer.text}])  # fmt: skip
            ids, learn = torch.tensor(scored.token_ids), torch.tensor(scored.learn)[1:]
            each = torch.nn.functional.cross_entropy(scored.logits_TV[:-1], ids[1:], reduction="none")
            expected[number] += 0.5 * answer.weight * float(each[learn].sum())
    assert found == pytest.approx(sum(expected[pick.row] for pick in taken), rel=1e-4)
    assert seen == pytest.approx(picks)


def test_where_samples_weigh_the_same_the_shares_of_answers_stay(model: Model) -> None:
    made = encode_rows(model.processor, sample(SAID))
    words = sum(sum(e.learn) for e in made)
    assert [e.loss_weight for e in per_sample(made, 2.0)] == pytest.approx([2 * w / words for w in (0.6, 0.2, 0.2)])


def test_an_evaluation_accepts_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": ASKED, "answers": SAID}), encoding="utf-8")
    (item,) = VqaFile(path=str(tmp_path / "rows.jsonl")).items()
    assert item.gold == ("red", "red", "crimson", "dark red")
    assert item.request.messages[-1].role == "user"
