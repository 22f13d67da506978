"""Rows that cannot be used: the loader and the check name them, and the good ones go on."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sensorium.core.batch import Example
from sensorium.core.errors import ConfigError, DataError, WeightsError
from sensorium.core.sample import Sample, parse_sample
from sensorium.data.check import check_source, usable_cpus
from sensorium.data.config import FileSource
from sensorium.data.formats import open_path
from sensorium.data.loader import LoadedBatch, Loader, LoaderOptions
from sensorium.data.mixture import MixtureOrder, Pick
from sensorium.data.source import ListSource, Source, read_row
from sensorium.interop.assemble import build_pretrained
from sensorium.model.learning import Learn
from sensorium.processing.processor import Processor
from sensorium.recipes.tiny import tiny_model
from sensorium.training.config import StageConfig
from sensorium.training.objectives.vocabulary import VocabularyConfig, VocabularyObjective
from sensorium.training.preflight import loader_options, prepare_stage

MODEL, TOKENIZER = build_pretrained(tiny_model())


def picture() -> Image.Image:
    return Image.fromarray(np.full((20, 20, 3), 90, np.uint8))


def row(content: list[Any], answer: str = "a red box") -> Sample:
    return parse_sample({"messages": [{"role": "user", "content": content},
                                      {"role": "assistant", "content": answer}]})  # fmt: skip


def image() -> dict[str, Any]:
    return {"type": "image", "image": picture()}


def text(words: str = "what?") -> dict[str, Any]:
    return {"type": "text", "text": words}


def loader(
    source: Source, processor: Processor, *, skip: bool, max_length: int = 128, transform: Any = None
) -> tuple[Loader, MixtureOrder]:
    order = MixtureOrder([len(source)], [1.0], seed=0)
    options = LoaderOptions(batch_size=1, max_length=max_length, skip_bad=skip)
    return Loader([source], order, processor, options, transform), order


def batches(
    source: Source, processor: Processor, count: int, *, skip: bool = True, **more: Any
) -> list[LoadedBatch]:
    made, order = loader(source, processor, skip=skip, **more)
    with closing(made.batches(order.start())) as stream:
        return [next(stream) for _ in range(count)]


def processor() -> Processor:
    return Processor(MODEL.config, TOKENIZER)


def vocabulary(source: Source) -> tuple[VocabularyObjective, Processor]:
    stage = processor().with_template("caption")
    made = VocabularyConfig().build(MODEL, stage, [source])
    assert isinstance(made, VocabularyObjective)
    return made, stage


@pytest.mark.parametrize(
    ("bad", "count"), [([text()], 0), ([image(), image()], 2), ([text("x" * 300), image()], 0)]
)
def test_vocabulary_takes_rows_of_one_picture(bad: list[Any], count: int) -> None:
    """Text alone, two pictures, and a picture that the cut drops."""
    answers = [{"role": "assistant", "content": "one"}]
    late = parse_sample({"messages": [*answers, {"role": "user", "content": bad}]})
    source = ListSource("rows", [row([image()]), late, row([image()], "a blue hat")])
    objective, stage = vocabulary(source)
    seen = batches(source, stage, 4)
    said = [p for b in seen for p in b.problems]
    assert said
    assert all(p.startswith("rows[1]: ") and f"holds {count} pictures" in p for p in said)
    for loaded in seen:
        assert objective(MODEL, loaded.batch).count == 1
    with pytest.raises(DataError, match=r"rows\[1\].*exactly one"):
        batches(source, stage, 4, skip=False)


def test_what_one_objective_requires_holds_for_its_stage_alone() -> None:
    source = ListSource("rows", [row([image()]), row([text()])])
    shared = processor()
    VocabularyConfig().build(MODEL, shared.with_template("caption"), [source])
    assert len(batches(source, shared, 4, skip=False)) == 4
    assert len(batches(source, shared.with_template("caption"), 4, skip=False)) == 4


@pytest.mark.parametrize(
    "part", [{"type": "audio", "audio": "a.wav"}, {"type": "boxes", "boxes": [[0, 0, 1, 1]]}]
)
def test_parts_the_model_does_not_take_are_errors_of_their_rows(part: dict[str, Any]) -> None:
    source = ListSource("rows", [row([image()]), row([part, text()])])
    seen = batches(source, processor(), 4)
    said = [p for b in seen for p in b.problems]
    assert said
    assert all(p.startswith("rows[1]: ") and repr(part["type"]) in p for p in said)
    with pytest.raises(DataError, match=r"rows\[1\]"):
        batches(source, processor(), 4, skip=False)
    report = check_source(source, processor(), max_length=128)
    assert (len(report.lengths), len(report.problems)) == (1, 1)
    # A prompt is not a row of data: there the question does not fit the model.
    with pytest.raises(ConfigError):
        processor().prompt(row([part]).messages)


@pytest.mark.parametrize("error", [DataError("no"), WeightsError("no")])
def test_errors_of_a_transform_name_the_row(error: Exception) -> None:
    def transform(example: Example, pick: Pick) -> Example:
        if pick.row == 1:
            raise error
        return example

    source = ListSource("rows", [row([image()]), row([image()])])
    with pytest.raises(type(error), match=r"^rows\[1\]: no$"):
        batches(source, processor(), 4, skip=False, transform=transform)
    if isinstance(error, DataError):
        said = [p for b in batches(source, processor(), 4, transform=transform) for p in b.problems]
        assert set(said) == {"rows[1]: no"}


def test_a_source_that_does_not_name_its_row_is_helped() -> None:
    class Nameless(ListSource):
        def __getitem__(self, index: int) -> Sample:
            raise DataError("broken")

    source = Nameless("rows", [row([text()])])
    with pytest.raises(DataError, match=r"^rows\[0\]: broken$"):
        read_row(source, 0)
    assert check_source(source, processor(), max_length=128).problems == ["rows[0]: broken"]


def test_the_check_cuts_long_rows_as_training_does() -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
             {"role": "user", "content": [image()]}]  # fmt: skip
    pictured = parse_sample({"messages": turns})
    whole = processor().encode(pictured)
    start = whole.slots["image"][0]
    # The limit falls inside the picture.
    limit = start + 1
    samples = [row([text("q")]), row([text("q" * 200)]), row([text("q")], "a" * 200), pictured]
    source = ListSource("rows", samples)
    report = check_source(source, processor(), max_length=limit)
    # Training refuses it: its answer lies behind the cut.
    assert len(report.problems) == 1
    assert report.problems[0].startswith("rows[1]: ")
    assert "first answer begins" in report.problems[0]
    # The picture goes whole, not only what lies behind the limit.
    assert dict(report.truncated)["rows[3]"] == len(whole) - start
    made, _ = loader(source, processor(), skip=True, max_length=limit)
    assert [i for i in range(4) if _refused(made, Pick(0, i, 0, 0))] == [1]
    trained = {f"rows[{i}]": made.examples(Pick(0, i, 0, 0))[0].truncated_tokens for i in (0, 2, 3)}
    assert dict(report.truncated) == {place: lost for place, lost in trained.items() if lost}


def _refused(made: Loader, pick: Pick) -> bool:
    try:
        made.examples(pick)
    except DataError:
        return True
    return False


def test_the_check_uses_the_processors_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.data import check

    asked: list[int] = []

    class Pool(check.ThreadPoolExecutor):
        def __init__(self, workers: int) -> None:
            asked.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(check, "ThreadPoolExecutor", Pool)
    source = ListSource("rows", [row([image()])])
    monkeypatch.setattr(check, "usable_cpus", lambda: 7)
    assert check_source(source, processor(), max_length=128).rows == 1
    check_source(source, processor(), max_length=128, workers=3)
    assert asked == [7, 3]
    assert usable_cpus() >= 1


@pytest.mark.parametrize("line", ["[" * 100_000, "1" * 5000, '{"messages": "\udc80"'])
def test_lines_that_break_the_parser_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    path.write_bytes(json.dumps(good).encode() + b"\n" + line.encode("utf-8", "surrogateescape") + b"\n")
    report = check_source(open_path(path, "samples"), processor(), max_length=128)
    assert len(report.lengths) == 1
    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"{path}:2: ")


def test_a_prepared_vocabulary_stage_skips_rows_of_text(tmp_path: Path) -> None:
    """The stage's loader uses the very processor that its objective was built with."""
    picture().save(tmp_path / "a.png")
    path = tmp_path / "rows.jsonl"
    rows = [row([{"type": "image", "image": "a.png"}]), row([text()])]
    path.write_text("\n".join(json.dumps(r.to_json()) for r in rows))
    stage = StageConfig(
        name="words", objective=VocabularyConfig(), data=(FileSource(path=str(path)),), steps=2,
        learns=(Learn(part="projectors.image", lr=1e-3),), batch_size=1, on_bad_row="skip",
    )  # fmt: skip
    parts = prepare_stage(stage, MODEL, processor())
    with closing(
        Loader(parts.sources, parts.order, parts.processor, loader_options(stage)).batches(
            parts.order.start()
        )
    ) as stream:
        seen = [next(stream) for _ in range(3)]
    assert {p.split(": ")[0] for b in seen for p in b.problems} == {f"{path}:2"}
    assert all(parts.objective(MODEL, b.batch).count == 1 for b in seen)
