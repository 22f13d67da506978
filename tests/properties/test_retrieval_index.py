"""Retrieval index: it finds what trying all would find, and whatever is done to its files, it answers rightly or refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.errors import DataError
from sensorium.generators import retrieval_index
from sensorium.generators.retrieval_index import EMBEDDINGS, IDS, INDEX, RetrievalIndex

FILES = (EMBEDDINGS, IDS, INDEX)


def index_of(count: int, width: int, seed: int) -> RetrievalIndex:
    vectors = np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)
    return RetrievalIndex.build([f"Bilder/ä {n}.png" for n in range(count)], vectors * 10.0)


def by_trying_all(index: RetrievalIndex, questions: Any, count: int, without: set[str]) -> list[list[tuple[str, float]]]:
    """In double precision, vector by vector."""
    found: list[list[tuple[str, float]]] = []
    for question in questions.astype(np.float64):
        question = question / np.sqrt((question * question).sum())
        scores = [(name, float(vector @ question)) for name, vector in zip(index.ids, index.vectors_NC.astype(np.float64))]
        found.append(sorted([s for s in scores if s[0] not in without], key=lambda s: -s[1])[:count])
    return found


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 300), width=st.integers(1, 9), questions=st.integers(1, 4), wanted=st.integers(0, 40),
    hidden=st.integers(0, 12), seed=st.integers(0, 999),
)  # fmt: skip
def test_search_equals_trying_all(count: int, width: int, questions: int, wanted: int, hidden: int, seed: int) -> None:
    index = index_of(count, width, seed)
    asked = np.random.default_rng(seed + 1).standard_normal((questions, width), dtype=np.float32)
    without = set(index.ids[seed % 3 :: 3][:hidden])
    found = index.search(asked, wanted, without=without | {"a stranger"})
    for hits, expected in zip(found, by_trying_all(index, asked, wanted, without), strict=True):
        assert [h.score for h in hits] == pytest.approx([score for _, score in expected], abs=1e-5)
        assert len({h.id for h in hits}) == len(hits)
        # Vectors as near as each other may change places; each has the score that it says.
        true = dict(by_trying_all(index, asked, count, without)[found.index(hits)])
        assert all(true[h.id] == pytest.approx(h.score, abs=1e-5) for h in hits)


def test_of_equals_the_earlier_comes_first() -> None:
    vectors = np.tile(np.eye(4, dtype=np.float32), (100, 1))
    index = RetrievalIndex.build([str(n) for n in range(400)], vectors)
    (hits,) = index.search(vectors[1:2], 3, without=["5"])
    assert [(h.id, h.score) for h in hits] == [("1", 1.0), ("9", 1.0), ("13", 1.0)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "pictures"
    index_of(9, 4, 0).save(folder)
    return folder


def test_an_opened_index_answers_as_the_saved_one(saved: Path) -> None:
    index, again = index_of(9, 4, 0), RetrievalIndex.open(saved)
    assert again.ids == index.ids
    assert np.array_equal(again.vectors_NC, index.vectors_NC)
    assert sorted(p.name for p in saved.iterdir()) == sorted(FILES)
    assert [p.name for p in saved.parent.iterdir()] == ["pictures"]


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_changed_byte_is_found(saved: Path, name: str, place: float, flip: int) -> None:
    with TemporaryDirectory() as copy:
        folder = Path(copy)
        for file in FILES:
            content = bytearray((saved / file).read_bytes())
            if file == name:
                content[int(place * len(content))] ^= flip
            (folder / file).write_bytes(content)
        with pytest.raises(DataError) as error:
            RetrievalIndex.open(folder)
        assert name in str(error.value)
        assert "To mend it" in str(error.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["lost", "empty", "cut", "longer"])
def test_a_lost_or_cut_file_is_named(saved: Path, name: str, damage: str, tmp_path: Path) -> None:
    for file in FILES:
        content = (saved / file).read_bytes()
        if file == name:
            content = {"empty": b"", "cut": content[:-7], "longer": content + b"\n"}.get(damage, b"")
        if file != name or damage != "lost":
            (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        RetrievalIndex.open(tmp_path)


def test_a_failed_save_leaves_the_old_index(saved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    index_of(9, 4, 0).save(folder)

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(retrieval_index, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        index_of(5, 4, 1).save(folder)
    assert len(RetrievalIndex.open(folder).ids) == 9
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]


def test_pictures_that_are_gone_are_named(tmp_path: Path) -> None:
    index = RetrievalIndex.build(["a.png", "b.png"], np.eye(2, dtype=np.float32))
    with pytest.raises(DataError, match=r"all of the index's 2 files are gone: a\.png, b\.png"):
        index.lost_files(tmp_path)
    (tmp_path / "a.png").touch()
    assert index.lost_files(tmp_path) == ["b.png"]
    (tmp_path / "b.png").touch()
    assert index.lost_files(tmp_path) == []
    with pytest.raises(DataError, match="outside"):
        RetrievalIndex.build(["../a.png"], np.ones((1, 2), dtype=np.float32)).lost_files(tmp_path / "x")


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["a", "a"], np.eye(2), "'a' comes more than once"),
        (["a"], np.eye(2), "1 ids for vectors"),
        (["a", "b"], np.array([[1.0, 0.0], [0.0, 0.0]]), "'b' is zero or not finite"),
        (["a", "b"], np.array([[np.nan, 1.0], [0.0, 1.0]]), "'a' is zero or not finite"),
        (["a"], np.array([[np.inf, 1.0]]), "'a' is zero or not finite"),
    ],
)
def test_vectors_that_cannot_be_found_are_refused(ids: list[str], vectors: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RetrievalIndex.build(ids, vectors.astype(np.float32))


@pytest.mark.parametrize("question", [np.zeros((1, 4)), np.full((1, 4), np.nan), np.ones((1, 5)), np.ones(4)])
def test_questions_that_have_no_answer_are_refused(question: Any) -> None:
    with pytest.raises(DataError, match="question"):
        index_of(9, 4, 0).search(question.astype(np.float32), 3)


def test_very_long_and_very_short_vectors_have_a_direction() -> None:
    index = RetrievalIndex.build(["a", "b"], np.array([[3e38, 3e38], [-1e-38, 1e-38]], dtype=np.float32))
    (hits,) = index.search(np.array([[1.0, 1.0]], dtype=np.float32), 2)
    assert [(h.id, round(h.score, 5)) for h in hits] == [("a", 1.0), ("b", 0.0)]


def knn(questions: Any, vectors: Any, count: int, metric: int) -> Any:
    """faiss's function of this name, which gives scores and places; its own are tried where it is installed.

    Of equal ones it takes the last: faiss takes any, with several threads and some hundred hits.
    """
    assert metric == 0
    scores = questions @ vectors.T
    order = (len(vectors) - 1 - np.argsort(-scores[:, ::-1], axis=1, kind="stable"))[:, :count]
    return np.take_along_axis(scores, order, axis=1), order


def large(count: int) -> RetrievalIndex:
    """Vectors of which some point where others do."""
    vectors = np.random.default_rng(5).standard_normal((count, 8), dtype=np.float32)
    vectors[[7, *range(50_000, 50_030), *range(count - 30, count)]] = np.eye(8, dtype=np.float32)[0]
    return RetrievalIndex.build([f"{n}.png" for n in range(count)], vectors)


@pytest.mark.parametrize("real", [False, True])
def test_beyond_a_hundred_thousand_faiss_answers_the_same(real: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss") if real else SimpleNamespace(knn=knn, METRIC_INNER_PRODUCT=0)
    asked_of: list[int] = []

    def counted(questions: Any, vectors: Any, count: int, metric: int) -> Any:
        asked_of.append(len(vectors))
        return faiss.knn(questions, vectors, count, metric=metric)

    seen = SimpleNamespace(knn=counted, METRIC_INNER_PRODUCT=faiss.METRIC_INNER_PRODUCT)
    monkeypatch.setitem(sys.modules, "faiss", seen)
    many = retrieval_index.FAISS_FROM + 1
    index = large(many)
    asked = np.concatenate([index.vectors_NC[7:8], np.random.default_rng(6).standard_normal((3, 8), dtype=np.float32)])
    without = [index.ids[7], *index.ids[50_010:60_000]]
    found = [index.search(asked, count, without=hidden) for count in (1, 5, 45) for hidden in ((), without)]
    assert asked_of == [many] * 6
    index.save(tmp_path / "index")
    assert RetrievalIndex.open(tmp_path / "index").search(asked, 45) == found[4]
    assert asked_of == [many] * 7
    # Of many questions, and of fewer vectors, numpy answers; without faiss, of all.
    five = index.search(np.concatenate([asked, asked[1:2]]), 45)
    large(many - 1).search(asked, 3)
    monkeypatch.setitem(sys.modules, "faiss", None)
    plain = [index.search(asked, count, without=hidden) for count in (1, 5, 45) for hidden in ((), without)]
    assert asked_of == [many] * 7
    assert [[hit.id for hit in hits] for hits in five[:4]] == [[hit.id for hit in hits] for hits in plain[4]]
    for mine, others in zip(found, plain, strict=True):
        # Of equal ones the earlier first, also where only some of them are among the nearest.
        assert [[hit.id for hit in hits] for hits in mine] == [[hit.id for hit in hits] for hits in others]
        assert [[hit.score for hit in hits] for hits in mine] == [pytest.approx([hit.score for hit in hits], abs=1e-6) for hits in others]
    (tmp_path / "index" / EMBEDDINGS).unlink()
    with pytest.raises(DataError, match=rf"{EMBEDDINGS}: a file of the index is not readable.*To mend it: build the index again"):
        RetrievalIndex.open(tmp_path / "index")


@pytest.mark.parametrize("real", [False, True])
def test_faiss_finds_the_same(real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if real:
        pytest.importorskip("faiss")
    else:
        monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace(knn=knn, METRIC_INNER_PRODUCT=0))
    index = index_of(500, 8, 3)
    asked = np.random.default_rng(4).standard_normal((3, 8), dtype=np.float32)
    plain = index.search(asked, 7, without=index.ids[::2])
    monkeypatch.setattr(retrieval_index, "FAISS_FROM", 100)
    monkeypatch.setattr(retrieval_index, "best", None)  # numpy's way is not gone.
    for mine, others in zip(index.search(asked, 7, without=index.ids[::2]), plain, strict=True):
        assert [h.id for h in mine] == [h.id for h in others]
        assert [h.score for h in mine] == pytest.approx([h.score for h in others], abs=1e-6)
