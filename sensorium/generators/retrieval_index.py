"""An index of pictures by the vectors of a retrieval head: on disk whole or not at all, searched exactly.

A folder holds `embeddings.safetensors` (float32, unit length), `ids.json` (one for each, such as a picture's path) and
`index.json` with the SHA-256 of both and of itself, so that a file that is lost or damaged is named before anything
is answered, and with the folder that the paths start from, as it is found from the index. Scores are cosines (FROMAGe, arXiv:2301.13823; GILL, arXiv:2305.17216).

With faiss (extra `retrieval`), single questions to more than 100,000 vectors go to its own exact search, without a copy of
them: on one thread 15 ms instead of 47 for 400,000 vectors of 256; of 32 questions numpy answers 2.5 times as fast.

Shape legend: N vectors, Q questions, C width, H heads of blocks, K hits.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import DataError
from sensorium.core.hashing import sha256_bytes, sha256_file

FORMAT = 1
EMBEDDINGS, IDS, INDEX = "embeddings.safetensors", "ids.json", "index.json"
FAISS_FROM = 100_000
"""More vectors than this are worth faiss."""
FAISS_QUESTIONS = 4
"""More questions than this at a time are not."""
SCORES = 1 << 24
"""In memory at a time (64 MB)."""
BLOCK = 64
"""Scores of which the best is looked at first."""
BRING_BACK = "bring them back, or build the index again without them"
AGAIN = "build the index again (sensorium index build MODEL PICTURES), or copy it again from where it is whole"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hit:
    """A vector that was found."""

    id: str
    score: float
    """Its cosine with the question."""


class RetrievalIndex:
    """Vectors of unit length with names."""

    def __init__(self, ids: Sequence[str], vectors_NC: Floats, root: Path | None = None) -> None:
        """Take vectors of unit length; `build` takes any.

        Args:
            root: the folder that ids are paths from, where they are paths.

        Raises:
            DataError: an id comes twice, or there are more or fewer than vectors.
        """
        self.ids, self.root = tuple(ids), root
        if vectors_NC.ndim != 2 or len(self.ids) != len(vectors_NC):
            raise DataError(f"{len(self.ids)} ids for vectors of shape {vectors_NC.shape}", expected="one for each")
        self._place = {name: n for n, name in enumerate(self.ids)}
        if len(self._place) != len(self.ids):
            twice = next(name for n, name in enumerate(self.ids) if self._place[name] != n)
            raise DataError(f"id {twice!r} comes more than once", fix="leave the second one out")
        self.vectors_NC = vectors_NC

    @classmethod
    def build(cls, ids: Sequence[str], vectors_NC: Floats, root: Path | None = None) -> RetrievalIndex:
        """An index of vectors of any length.

        Raises:
            DataError: as above, or a vector has no direction.
        """
        index = cls(ids, vectors_NC, root)
        index.vectors_NC, bad = _unit(vectors_NC)
        if len(bad):
            raise DataError(f"the vector of {ids[bad[0]]!r} is zero or not finite ({len(bad)} in all)",
                            fix="leave these pictures out")  # fmt: skip
        return index

    def save(self, folder: Path) -> None:
        """Write the index; an older one there is replaced once the new one is whole."""
        with atomic_folder(folder) as target:
            save_file({"embeddings": self.vectors_NC}, target / EMBEDDINGS)
            write_json(target / IDS, list(self.ids))
            about = {"format": FORMAT, "vectors": len(self.ids), "width": self.vectors_NC.shape[1],
                     "sha256": {name: sha256_file(target / name) for name in (EMBEDDINGS, IDS)}}  # fmt: skip
            if self.root is not None:
                # From the index, so that both can be moved together.
                about["root"] = os.path.relpath(self.root.resolve(), folder.resolve())
            write_json(target / INDEX, about | {"own_sha256": _digest(about)})

    @classmethod
    def open(cls, folder: Path) -> RetrievalIndex:
        """Read an index.

        Raises:
            DataError: a file is missing or damaged, or of a later version; the message names it.
        """
        about = _read_about(folder / INDEX)
        for name, expected in about["sha256"].items():
            try:
                found = sha256_file(folder / name)
            except OSError as error:
                raise DataError(f"a file of the index is not readable: {error.strerror}",
                                where=str(folder / name), fix=AGAIN) from None  # fmt: skip
            if found != expected:
                raise DataError(f"SHA-256 is {found[:16]}…", expected=f"{expected[:16]}…: the file is damaged",
                                where=str(folder / name), fix=AGAIN)  # fmt: skip
        try:
            vectors_NC = load_file(folder / EMBEDDINGS)["embeddings"]
            ids = json.loads((folder / IDS).read_text(encoding="utf-8"))
        except (SafetensorError, KeyError, ValueError) as error:
            raise DataError(f"not an index of this format: {error}", where=str(folder), fix=AGAIN) from None
        return cls(ids, vectors_NC, (folder / about["root"]).resolve() if "root" in about else None)

    def search(
        self, questions_QC: Floats, count: int, *, without: Collection[str] = ()
    ) -> list[list[Hit]]:
        """The `count` nearest vectors of each question, nearest first; of equal ones the earlier first.

        Args:
            without: ids that are not wanted, such as pictures that were shown already.

        Raises:
            DataError: questions of another width, or without a direction.
        """
        if questions_QC.ndim != 2 or questions_QC.shape[1] != self.vectors_NC.shape[1]:
            raise DataError(f"questions of shape {questions_QC.shape}", expected=f"width {self.vectors_NC.shape[1]}")
        questions_QC, bad = _unit(questions_QC)
        if len(bad):
            raise DataError(f"question {bad[0]} is zero or not finite")
        hidden = np.array([self._place[name] for name in set(without) if name in self._place], dtype=np.int64)
        count = min(count, len(self.ids) - len(hidden))
        if count <= 0:
            return [[] for _ in questions_QC]
        faiss = _faiss() if len(self.ids) > FAISS_FROM and len(questions_QC) <= FAISS_QUESTIONS else None
        return self._by_numpy(questions_QC, count, hidden) if faiss is None else self._by_faiss(faiss, questions_QC, count, hidden)

    def lost_files(self, root: Path) -> list[str]:
        """The ids, which are files below `root`, that are not there.

        Raises:
            DataError: none is there, or one would lie elsewhere.
        """
        base = root.resolve()
        outside = [name for name in self.ids if not (base / name).resolve().is_relative_to(base)]
        if outside:
            raise DataError(f"the index lists {outside[0]!r}, which is outside its folder", where=str(root))
        lost = [name for name in self.ids if not (base / name).is_file()]
        if len(lost) == len(self.ids):
            raise DataError(f"all of the index's {len(lost)} files are gone: {named(lost)}", where=str(root), fix=BRING_BACK)
        return lost

    def _by_numpy(self, questions_QC: Floats, count: int, hidden: NDArray[np.int64]) -> list[list[Hit]]:
        found: list[list[Hit]] = []
        rows = max(1, SCORES // len(self.ids))
        for start in range(0, len(questions_QC), rows):
            scores_QN = questions_QC[start : start + rows] @ self.vectors_NC.T
            scores_QN[:, hidden] = -np.inf
            found += [self._hits(best(row_N, count), row_N) for row_N in scores_QN]
        return found

    def _by_faiss(self, faiss: Any, questions_QC: Floats, count: int, hidden: NDArray[np.int64]) -> list[list[Hit]]:
        # Of equal ones faiss takes any, on several threads: the one behind the last tells whether there are more of them.
        asked = min(count + len(hidden) + 1, len(self.ids))
        scores_QK, places_QK = faiss.knn(questions_QC, self.vectors_NC, asked, metric=faiss.METRIC_INNER_PRODUCT)
        found: list[list[Hit]] = []
        for question_C, scores_K, places_K in zip(questions_QC, scores_QK, places_QK, strict=True):
            wanted = ~np.isin(places_K, hidden)
            near = dict(zip(places_K[wanted].tolist(), scores_K[wanted].tolist(), strict=True))
            order = sorted(near, key=lambda n: (-near[n], n))[:count]
            if asked < len(self.ids) and near[order[-1]] == scores_K[-1]:
                found += self._by_numpy(question_C[None], count, hidden)
            else:
                found.append([Hit(self.ids[n], near[n]) for n in order])
        return found

    def _hits(self, places: NDArray[np.int64], scores_N: Floats) -> list[Hit]:
        return [Hit(self.ids[n], float(scores_N[n])) for n in places]


def named(ids: Sequence[str]) -> str:
    """The first few of them."""
    return ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")


def best(scores_N: Floats, count: int) -> NDArray[np.int64]:
    """Places of the `count` highest scores, highest first, of equal ones the earlier first.

    The best of each block of scores is looked at first: at least `count` scores are as high as the
    `count`-th of those, which leaves few to sort.
    """
    whole = len(scores_N) // BLOCK * BLOCK
    tops_H = scores_N[:whole].reshape(-1, BLOCK).max(axis=1)
    if len(tops_H) < count:
        tops_H = scores_N
    floor = np.partition(tops_H, len(tops_H) - count)[len(tops_H) - count]
    near = np.flatnonzero(scores_N >= floor)
    return near[np.lexsort((near, -scores_N[near]))][:count]


def _unit(vectors_NC: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Vectors of unit length, and the places of those that have no direction."""
    vectors_NC = np.ascontiguousarray(vectors_NC, dtype=np.float32)
    # The largest value first, whose square might be beyond float32.
    top_N1 = np.abs(vectors_NC).max(axis=1, keepdims=True, initial=0.0)
    bad = np.flatnonzero(~np.isfinite(top_N1[:, 0]) | (top_N1[:, 0] == 0))
    with np.errstate(all="ignore"):
        vectors_NC = vectors_NC / top_N1
        return vectors_NC / np.linalg.norm(vectors_NC, axis=1, keepdims=True), bad


def _faiss() -> Any:
    """faiss, where it is installed."""
    try:
        return importlib.import_module("faiss")
    except ModuleNotFoundError:
        return None


def _digest(about: dict[str, Any]) -> str:
    return sha256_bytes(json.dumps(about, sort_keys=True).encode())


def _read_about(file: Path) -> dict[str, Any]:
    """What `index.json` says.

    Raises:
        DataError: it is missing, damaged, or of a later version.
    """
    try:
        text = file.read_text(encoding="utf-8")
        about = json.loads(text)
        own = about.pop("own_sha256")
    except OSError as error:
        raise DataError(f"no index: {error.strerror}", where=str(file), fix=AGAIN) from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DataError("the file is damaged", expected="JSON as it was written", where=str(file), fix=AGAIN) from None
    # Every byte counts, those between values too.
    if own != _digest(about) or text != json.dumps(about | {"own_sha256": own}, indent=2, ensure_ascii=False) + "\n":
        raise DataError("the file was altered: its hash differs", where=str(file), fix=AGAIN)
    if about["format"] != FORMAT:
        raise DataError(f"an index of format {about['format']}", expected=str(FORMAT), where=str(file))
    return about
