"""Conversations about pictures: naming, describing, category, existence, several turns.

Every conversation is a pure function of (picture, seed, variant).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sensorium.core.hashing import stable_int
from sensorium.data.picture_book.categories import CATEGORIES
from sensorium.data.picture_book.words import article

NAMING = (
    "What is this?",
    "What is in the picture?",
    "What does the picture show?",
    "Name the thing in the picture.",
    "What do you see?",
    "What object is this?",
    "What is shown here?",
    "Can you tell me what this is?",
    "What is in this image?",
    "What is it?",
    "Identify the main object.",
    "What thing does the image show?",
    "What is the main subject of this picture?",
    "What am I looking at?",
)
SHORT = " Answer with one word or a short phrase."
# Other ways to ask for a short answer; benchmarks use the first.
BRIEF = (SHORT, SHORT, " Answer with a single word.", " Answer briefly.", " One word only.",
         " Reply with just the name.")  # fmt: skip
DESCRIBE = (
    "Describe the picture.",
    "Describe this image in a sentence.",
    "Tell me about this picture.",
    "What can you say about this picture?",
    "Write a caption for this picture.",
)
CATEGORY = (
    "What kind of thing is this?",
    "Which category does this belong to?",
    "What sort of thing does the picture show?",
    "Which group fits the picture best?",
    "What category is this?",
    "What type of thing is shown?",
)
EXISTENCE = (
    "Is there {a} in the picture?",
    "Is this {a}?",
    "Does the picture show {a}?",
    "Can you see {a} here?",
    "Is there {a} in the image?",
    "Do you see {a}?",
    "Does this image contain {a}?",
    "Is {a} shown in this picture?",
)
YES_NO = " Answer yes or no."
# Categories that exclude one another plainly enough for a yes/no question.
BROAD_KINDS = ("animal", "food", "plant", "vehicle", "building", "musical instrument", "flag")


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What instruction samples need to know about the whole set."""

    entries: Sequence[dict[str, Any]]
    names_by_category: dict[str, list[str]]
    all_names: list[str]

    @classmethod
    def of(cls, entries: Sequence[dict[str, Any]]) -> Catalogue:
        by_category: dict[str, set[str]] = {}
        for entry in entries:
            by_category.setdefault(entry["category"] or "", set()).add(entry["name"])
        return cls(
            entries,
            {category: sorted(names) for category, names in by_category.items()},
            sorted({entry["name"] for entry in entries}),
        )


def with_article(name: str) -> str:
    """`a cat`, `an apple`, `grapes`."""
    return f"{article(name)} {name}".strip()


def sentence(text: str) -> str:
    """First letter upper case, full stop."""
    return text[0].upper() + text[1:] + "."


def name_turn(entry: dict[str, Any], rng: random.Random, name: str | None = None) -> tuple[str, str]:
    """A naming question and its answer: the entry's name, unless another true one is given."""
    name = name or str(entry["name"])
    if rng.random() < 0.6:
        return rng.choice(NAMING) + rng.choice(BRIEF), name
    return rng.choice(NAMING), sentence(with_article(name))


def true_name(entry: dict[str, Any], rng: random.Random) -> str:
    """Mostly the entry's name, else one of the others that are accepted, in the singular: who
    does not know a rosella is right to say bird."""
    others = sorted({n for n in entry["accepted"] if n != entry["name"]}
                    - {f"{n}{end}" for n in entry["accepted"] for end in ("s", "es")})  # fmt: skip
    return rng.choice(others) if others and rng.random() < 0.35 else entry["name"]


def describe_turn(entry: dict[str, Any], rng: random.Random) -> tuple[str, str]:
    """A request to describe, and the caption with what kind of picture it is."""
    answer = sentence(entry["caption"])
    if entry["category"]:
        answer += f" This {entry['style']} belongs to the category {entry['category']}."
    else:
        answer += f" It is a {entry['style']}."
    return rng.choice(DESCRIBE), answer


def category_turn(entry: dict[str, Any], rng: random.Random) -> tuple[str, str]:
    """A category question, with a list to choose from half of the time: some categories or,
    now and then, all."""
    question = rng.choice(CATEGORY)
    if rng.random() < 0.5:
        wrong = [c for c in CATEGORIES if c != entry["category"]]
        others = rng.sample(wrong, len(wrong) if rng.random() < 0.25 else rng.randint(2, 7))
        options = [*others, entry["category"]]
        rng.shuffle(options)
        question += f" Choose one of: {', '.join(options)}."
    return question, entry["category"]


def existence_turn(
    entry: dict[str, Any], catalogue: Catalogue, rng: random.Random, present: bool
) -> tuple[str, str]:
    """A yes/no question; absent things are from the same category half of the time, and now
    and then the question is about a whole category."""
    kind = entry["category"] or ""
    if kind in BROAD_KINDS and rng.random() < 0.15:
        name = kind if present else rng.choice([k for k in BROAD_KINDS if k != kind])
    elif present:
        name = present_name(entry, rng)
    else:
        name = absent_name(entry, catalogue, rng)
        # "Is there a person?" is no question to answer with no about a fisherman.
        while set(name.split()) & set(kind.split()):
            name = absent_name(entry, catalogue, rng, hard=False)
    question = rng.choice(EXISTENCE).format(a=with_article(name))
    return question + (YES_NO if rng.random() < 0.7 else ""), "yes" if present else "no"


def present_name(entry: dict[str, Any], rng: random.Random) -> str:
    """The name or, sometimes, its noun alone."""
    head = entry["name"].split()[-1]
    return entry["name"] if rng.random() < 0.6 or head not in entry["accepted"] else head


def absent_name(
    entry: dict[str, Any], catalogue: Catalogue, rng: random.Random, hard: bool | None = None
) -> str:
    """A name of another picture that no accepted name of this one overlaps."""
    if hard is None:
        hard = rng.random() < 0.5
    pool = catalogue.names_by_category.get(entry["category"] or "", []) if hard else []
    pool = pool if len(pool) > 3 else catalogue.all_names
    own = {word for name in entry["accepted"] for word in name.split()}
    for _ in range(50):
        name = rng.choice(pool)
        if not own & set(name.split()):
            return name
    return rng.choice([n for n in catalogue.all_names if not own & set(n.split())])


def caption_sample(entry: dict[str, Any]) -> dict[str, Any]:
    """Picture, then caption: for alignment."""
    return conversation(entry, "caption", [("", sentence(entry["caption"]))])


def drawing_sample(entry: dict[str, Any]) -> dict[str, Any]:
    """Caption, then picture: for models that draw."""
    read = caption_sample(entry)
    (picture,) = [part for part in read["messages"][0]["content"] if part["type"] == "image"]
    said = {"type": "text", "text": sentence(entry["caption"])}
    messages = [{"role": "user", "content": [said]}, {"role": "assistant", "content": [picture]}]
    return {**read, "id": f"{read['id']}-drawn", "messages": messages}


def words_sample(entry: dict[str, Any]) -> dict[str, Any]:
    """Picture, then every word that is true of it: for vocabulary alignment."""
    words = dict.fromkeys(w for name in [entry["name"], *entry["accepted"]] for w in name.split())
    # Plurals and singulars of one word would count twice.
    kept = [w for w in words if not (w.endswith("s") and w[:-1] in words)]
    if entry["category"]:
        kept += entry["category"].split()
    return conversation(entry, "words", [("", sentence(" ".join(dict.fromkeys(kept))))])


def instruct_sample(
    entry: dict[str, Any], catalogue: Catalogue, seed: int, variant: int
) -> dict[str, Any]:
    """A conversation about one picture: mostly one question, sometimes several.

    Where there are several, none gives the next away: yes and no are drawn anew for each
    question, and what a turn asks for has not been said before it. A model can otherwise
    answer from the text alone, and learns to.
    """
    rng = random.Random(stable_int("instruct", seed, variant, entry["id"]))
    draw = rng.random()
    if draw < 0.35:
        turns = [name_turn(entry, rng)]
    elif draw < 0.65:
        turns = _existence_turns(entry, catalogue, rng, rng.choice((1, 2, 3)))
    elif draw < 0.8 and entry["category"]:
        turns = [category_turn(entry, rng)]
    elif draw < 0.9:
        turns = [describe_turn(entry, rng)]
    else:
        # The one yes/no question is answered with no: a yes would have said the name.
        turns = [existence_turn(entry, catalogue, rng, present=False)]
        if entry["category"]:
            turns.append(category_turn(entry, rng))
        turns.append(name_turn(entry, rng))
    return conversation(entry, f"v{variant}", turns)


def sheet_sample(
    entry: dict[str, Any], catalogue: Catalogue, seed: int, variant: int
) -> dict[str, Any]:
    """Eight questions about one picture, each asked afresh: what a picture costs in tokens is
    paid once."""
    rng = random.Random(stable_int("sheet", seed, variant, entry["id"]))
    turns = [name_turn(entry, rng, true_name(entry, rng)) for _ in range(2)]
    turns += [existence_turn(entry, catalogue, rng, rng.random() < 0.5) for _ in range(4)]
    turns.append(category_turn(entry, rng) if entry["category"] else name_turn(entry, rng))
    turns.append(describe_turn(entry, rng) if rng.random() < 0.3
                 else existence_turn(entry, catalogue, rng, rng.random() < 0.5))  # fmt: skip
    return {**conversation(entry, f"s{variant}", turns), "separate_turns": True}


def _existence_turns(
    entry: dict[str, Any], catalogue: Catalogue, rng: random.Random, count: int
) -> list[tuple[str, str]]:
    """Up to `count` questions, each as likely true as false whatever came before: a picture
    shows one thing, so that after a yes everything else would be a no."""
    turns: list[tuple[str, str]] = []
    while len(turns) < count:
        turns.append(existence_turn(entry, catalogue, rng, rng.random() < 0.5))
        if turns[-1][1] == "yes":
            break
    return turns


def conversation(
    entry: dict[str, Any], suffix: str, turns: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """A Sample's JSON: the picture stands before the first question."""
    messages: list[dict[str, Any]] = []
    for i, (question, answer) in enumerate(turns):
        content: list[dict[str, Any]] = [{"type": "image", "image": entry["image"]}] if i == 0 else []
        if question:
            content.append({"type": "text", "text": question})
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return {"id": f"{entry['id']}#{suffix}", "messages": messages}
