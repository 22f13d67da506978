"""picture-book and scenes: names are clean, splits are honest, answers are true."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from sensorium.core.sample import parse_sample
from sensorium.data.config import PictureBookSource, ScenesSource
from sensorium.data.picture_book.build import read_entries
from sensorium.data.picture_book.categories import CATEGORIES, STAMP_FOLDERS, lookup
from sensorium.data.picture_book.groups import difference_hash, group_pictures
from sensorium.data.picture_book.instruct import YES_NO, Catalogue, instruct_sample, sheet_sample
from sensorium.data.picture_book.place import ROWS, SHIPPED
from sensorium.data.picture_book.words import article, clean_title, describe
from sensorium.data.scenes import COLORS, NUMBERS, TASKS, ask, draw_scene, make_scene
from sensorium.media.image import load_image

DICTIONARY = frozenset(["light", "bulb", "red", "flower", "bucket", "moore", "horse", "bear", "ours", "card", "in", "the", "of"])


@pytest.fixture(scope="module")
def entries() -> list[dict[str, Any]]:
    return read_entries(SHIPPED)


@pytest.mark.parametrize(
    ("title", "author", "clean"),
    [
        ("light_bulb_karl_bartel_01", "Karl Bartel", "light bulb"),
        ("bucket_michael_moore_", "Michael Moore", "bucket"),
        ("red_flower_03", "Jean-Victor Balin (balin_j@epita.fr)", "flower"),
        ("cavallo_architetto_franc_07", "Architetto Francesco Rollandin", "horse"),
        ("ours_etienne_bersac_r", "Etienne Bersac", "bear"),
        ("xyzzy_12", None, ""),
    ],
)
def test_titles_lose_authors_and_numbers(title: str, author: str | None, clean: str) -> None:
    assert clean_title(title, author, DICTIONARY) == clean


@pytest.mark.parametrize(
    ("line", "name", "head"),
    [
        ("A bunch of grapes.", "grapes", "grapes"),
        ("A pair of glasses.", "glasses", "glasses"),
        ("A Seville orange, also called a bitter orange.", "seville orange", "orange"),
        ("A hat worn by a university student.", "hat worn", "worn"),
        ("A red and white anemone flower.", "red and white anemone flower", "flower"),
        ("A female head.", "female head", "head"),
    ],
)
def test_lines_become_names(line: str, name: str, head: str) -> None:
    naming = describe(line)
    if head == "worn":
        assert naming is None or naming.head != "hat"
        return
    assert naming is not None
    assert (naming.name.split()[-1], naming.head) == (head, head)


def test_articles() -> None:
    assert [article(n) for n in ("apple", "cat", "glasses", "bus", "bread")] == ["an", "a", "", "a", ""]


def test_shipped_part_keeps_its_promise(entries: list[dict[str, Any]]) -> None:
    assert len(entries) >= 1200
    files = list((SHIPPED / "images").iterdir())
    assert len(files) == len(entries)
    total = sum(f.stat().st_size for f in files) + (SHIPPED / f"{ROWS}.gz").stat().st_size
    assert total <= 10 * 2**20
    assert sum(bool(e["caption_zh"]) for e in entries) > 200
    for entry in entries:
        assert entry["licence"]
        assert entry["source"]
        assert entry["category"] in (*CATEGORIES, None)
        assert not re.search(r"\d", entry["name"])
    assert {e["split"] for e in entries} == {"train", "heldout"}


def test_groups_never_straddle_the_split(entries: list[dict[str, Any]]) -> None:
    sides: dict[int, set[str]] = {}
    for entry in entries:
        sides.setdefault(entry["group"], set()).add(entry["split"])
    assert all(len(side) == 1 for side in sides.values())


def test_no_heldout_picture_has_a_twin_in_training(entries: list[dict[str, Any]]) -> None:
    """Measured again on the shipped files, not read from their group numbers."""
    hashes = np.stack([difference_hash(load_image(SHIPPED / e["image"]).to_pil()) for e in entries])
    bits = hashes.astype(np.float32)
    ones = bits.sum(1)
    apart = ones[:, None] + ones[None, :] - 2 * bits @ bits.T
    train = np.array([e["split"] == "train" for e in entries])
    clear = ones > 8
    twins = (apart <= 12) & (~train & clear)[:, None] & (train & clear)[None, :]
    assert not twins.any(), [
        (entries[i]["id"], entries[j]["id"]) for i, j in zip(*np.nonzero(twins), strict=True)
    ][:5]


def test_grouping_joins_twins_and_series() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.random((5, 256)) < 0.5
    hashes[1] = hashes[0]
    hashes[1, :9] ^= True
    groups = group_pictures(hashes, ["", "", "a|x", "a|x", ""])
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len({groups[0], groups[2], groups[4]}) == 3


def _turns(sample: dict[str, Any]) -> list[tuple[str, str]]:
    texts = [m["content"][-1]["text"] for m in sample["messages"]]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_existence_questions_are_true_and_balanced(entries: list[dict[str, Any]]) -> None:
    catalogue = Catalogue.of(entries)
    answers: Counter[str] = Counter()
    for variant in range(4):
        for entry in entries[:300]:
            own = {w for name in entry["accepted"] for w in name.split()}
            for question, answer in _turns(instruct_sample(entry, catalogue, 1, variant)):
                if answer in ("yes", "no"):
                    answers[answer] += 1
                    asked = set(re.findall(r"[\w'-]+", question.removesuffix(YES_NO).lower()))
                    own_kind = set((entry["category"] or "").split())
                    about = bool((own | own_kind) & asked)
                    assert (answer == "yes") == about, (question, entry["accepted"])
    total = answers.total()
    assert total > 500
    # Four standard deviations of a fair coin.
    assert abs(answers["yes"] - answers["no"]) < 4 * total**0.5


def test_no_turn_gives_a_later_one_away(entries: list[dict[str, Any]]) -> None:
    """Where a name is asked for, no earlier turn has said it; a second yes/no question is as
    open as the first."""
    catalogue = Catalogue.of(entries)
    seconds: Counter[str] = Counter()
    for variant in range(6):
        for entry in entries[:400]:
            # A building's category says its name; nothing can be done about that.
            kind = set((entry["category"] or "").split())
            turns = _turns(instruct_sample(entry, catalogue, 1, variant))
            answers = [answer.lower() for _, answer in turns]
            assert "yes" not in answers[:-1]
            seconds.update(answers[1:2] if set(answers) <= {"yes", "no"} else [])
            for i, answer in enumerate(answers):
                if answer not in ("yes", "no") and entry["name"] in answer:
                    said = " ".join(f"{q} {a}" for q, a in turns[:i]).lower()
                    assert not set(re.findall(r"[\w'-]+", said)) & (set(entry["name"].split()) - kind)
    assert seconds.total() > 100
    assert abs(seconds["yes"] - seconds["no"]) < 4 * seconds.total() ** 0.5


def test_sheets_ask_true_questions_afresh(entries: list[dict[str, Any]]) -> None:
    catalogue = Catalogue.of(entries)
    answers: Counter[str] = Counter()
    for entry in entries[:300]:
        sample = sheet_sample(entry, catalogue, 1, 0)
        assert sample["separate_turns"]
        assert len(parse_sample(sample).conversations()) == 8
        for question, answer in _turns(sample):
            asked = set(re.findall(r"[\w'-]+", question.removesuffix(YES_NO).lower()))
            own = {w for n in [*entry["accepted"], entry["category"] or ""] for w in n.split()}
            if answer in ("yes", "no"):
                answers[answer] += 1
                assert (answer == "yes") == bool(own & asked), (question, entry["accepted"])
            else:
                assert own & set(re.findall(r"[\w'-]+", answer.lower())), (question, answer)
    assert abs(answers["yes"] - answers["no"]) < 4 * answers.total() ** 0.5


def test_scene_sheets_ask_no_question_twice() -> None:
    source = ScenesSource(task="sheets", count=40).open()
    for i in range(40):
        sample = source[i]
        assert sample.separate_turns
        asked = [m.text for m in sample.messages[::2]]
        assert len(asked) == len(sample.conversations()) >= 3
        both = {(m.text, a.text) for m, a in zip(sample.messages[::2], sample.messages[1::2], strict=True)}
        # The same question always has the same answer.
        assert len(both) == len(set(asked))


def test_sources_are_pure_functions_of_their_index() -> None:
    for config in (PictureBookSource(part="shipped"), ScenesSource(count=9)):
        one, two = config.open(), config.open()
        for i in (0, 5, len(one) - 1):
            assert [m.text for m in one[i].messages] == [m.text for m in two[i].messages]


def test_scene_answers_follow_from_the_pixels() -> None:
    """Each thing's centre has its colour, and answers agree with a recount."""
    for index in range(60):
        scene = make_scene(77, index)
        pixels = np.asarray(draw_scene(scene))
        for thing in scene.things:
            if thing.shape == "ring":
                continue
            seen = pixels[int(thing.y * 224), int(thing.x * 224)].astype(int)
            assert np.abs(seen - COLORS[thing.color]).max() < 25, (index, thing)
        rng = random.Random(index)
        for task in TASKS:
            question = ask(scene, task, rng)
            if question is None:
                continue
            if question.text == "How many shapes are there?":
                assert question.answer == NUMBERS[len(scene.things)]
            if task == "existence":
                said = re.search(r"an? (\w+ \w+)", question.text)
                assert said is not None
                there = said.group(1) in {t.name for t in scene.things}
                assert question.answer == ("yes" if there else "no")
            if task == "relation":
                found = re.search(r"the (\w+ \w+) (above|below|to the left of|to the right of) the (\w+ \w+)", question.text)
                assert found is not None
                a, b = (next(t for t in scene.things if t.name == found.group(k)) for k in (1, 3))
                true = {"above": a.y < b.y, "below": a.y > b.y, "to the left of": a.x < b.x,
                        "to the right of": a.x > b.x}[found.group(2)]  # fmt: skip
                assert question.answer == ("yes" if true else "no")


def test_folders_take_their_longest_prefix() -> None:
    assert lookup(STAMP_FOLDERS, "household/tools") == "tool"
    assert lookup(STAMP_FOLDERS, "household/dishes/utensils") == "household item"
    assert lookup(STAMP_FOLDERS, "nowhere") is None
