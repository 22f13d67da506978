"""VQA v2 (arXiv:1612.00837) as its authors publish it: ten answers to each question, and the questions in a file beside.

    v2_mscoco_train2014_annotations.json             {"data_subtype", "annotations": [{"question_id", "image_id", "answers"}]}
    v2_OpenEnded_mscoco_train2014_questions.json     {"questions": [{"question_id", "question"}]}
    train2014/COCO_train2014_000000000009.jpg
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.data.formats.rows import Row, RowSource
from sensorium.data.source import Source, read_json

NAMES = (("mscoco_", "OpenEnded_mscoco_"), ("annotations", "questions"))


def open_vqa(path: Path, root: Path | None = None) -> Source:
    """One Sample for each question, with all its answers. Pictures lie in folders named like their part of COCO.

    Args:
        path: the file of annotations; that of the questions lies beside it.

    Raises:
        DataError: either is missing or of another form.
    """
    values = read_json(path.read_bytes(), str(path))
    annotations, subtype = _list(values, "annotations", path), values.get("data_subtype")
    if not isinstance(subtype, str):
        raise DataError("no 'data_subtype'", expected="the part of COCO, such as train2014", where=str(path))
    beside = path.with_name(_renamed(path.name))
    if beside == path or not beside.exists():
        raise DataError(f"no file of questions {beside.name}", where=str(path),
                        fix="put it beside the annotations, under the name that VQA v2 gives it")  # fmt: skip
    questions = {q["question_id"]: q["question"]
                 for q in _list(read_json(beside.read_bytes(), str(beside)), "questions", beside)
                 if isinstance(q, Mapping) and {"question_id", "question"} <= set(q)}  # fmt: skip

    def convert(row: Row, where: str) -> dict[str, Any]:
        number, picture, said = row.get("question_id"), row.get("image_id"), row.get("answers")
        if not isinstance(number, int) or number not in questions:
            raise DataError(f"no question with id {number!r} in {beside.name}", where=where)
        if not isinstance(picture, int) or not isinstance(said, list):
            raise DataError("annotation without 'image_id' or 'answers'", where=where)
        answers = [one.get("answer") if isinstance(one, Mapping) else None for one in said]
        image = {"type": "image", "image": f"{subtype}/COCO_{subtype}_{picture:012d}.jpg"}
        content = [image, {"type": "text", "text": questions[number]}]
        return {"id": str(number), "messages": [{"role": "user", "content": content}], "answers": answers}

    return RowSource(path.name, len(annotations), lambda index: annotations[index], convert,
                     where=lambda index: f"{path}, annotation {index + 1}", root=root or path.parent)  # fmt: skip


def _renamed(name: str) -> str:
    for theirs, other in NAMES:
        name = name.replace(theirs, other)
    return name


def _list(values: Any, key: str, path: Path) -> list[Any]:
    found = values.get(key) if isinstance(values, Mapping) else None
    if not isinstance(found, list):
        raise DataError(f"not VQA v2: no list of {key!r}", where=str(path))
    return found
