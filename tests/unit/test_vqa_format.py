"""VQA v2's own files: every question with what its annotators said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sensorium.core.errors import DataError
from sensorium.data.formats import open_path
from sensorium.data.formats.detect import detect_format

SAID = ["net", "net", "netting", "mesh"]
NAMES = ("v2_mscoco_train2014_annotations.json", "v2_OpenEnded_mscoco_train2014_questions.json")


def written(folder: Path, **changes: object) -> Path:
    answers = [{"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(SAID, 1)]
    row = {"question_id": 458752000, "image_id": 458752, "answers": answers, "question_type": "what is this"} | changes
    other = {"question_id": 9001, "image_id": 9, "answers": [{"answer": "yes"}]}
    (folder / NAMES[0]).write_text(json.dumps({"data_subtype": "train2014", "annotations": [row, other]}))
    asked = [{"question_id": 9001, "image_id": 9, "question": "Is it?"},
             {"question_id": 458752000, "image_id": 458752, "question": "What is this photo taken looking through?"}]  # fmt: skip
    (folder / NAMES[1]).write_text(json.dumps({"data_subtype": "train2014", "questions": asked}))
    return folder / NAMES[0]


def test_questions_pictures_and_shares(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert detect_format(path) == "vqa"
    source = open_path(path)
    assert len(source) == 2
    first = source[0]
    assert first.messages[0].text == "What is this photo taken looking through?"
    assert [m.value for m in first.media()] == ["train2014/COCO_train2014_000000458752.jpg"]
    assert {a.text: a.weight for a in first.answers} == {"net": 0.5, "netting": 0.25, "mesh": 0.25}
    assert (first.id, first.root, first.messages[-1].text) == ("458752000", tmp_path, "net")
    assert [(a.text, a.weight) for a in source[1].answers] == [("yes", 1.0)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"question_id": 5}, "no question with id 5"), ({"image_id": "9"}, "without 'image_id'"),
     ({"answers": [{}]}, "answer None"), ({"answers": []}, "'answers' is an empty list")],
)  # fmt: skip
def test_bad_annotations_are_named(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    source = open_path(written(tmp_path, **changes), "vqa")
    with pytest.raises(DataError, match=said) as caught:
        source[0]
    assert "annotation 1" in str(caught.value)
    assert source[1].id == "9001"


def test_the_file_of_questions_is_asked_for_by_name(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / NAMES[1]).unlink()
    with pytest.raises(DataError, match=f"no file of questions {NAMES[1]}"):
        open_path(path, "vqa")
    path.write_text("{}")
    with pytest.raises(DataError, match="no list of 'annotations'"):
        open_path(path, "vqa")
