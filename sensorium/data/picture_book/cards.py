"""Cartoon flash cards as named pictures: the Art4Apps drawings inside Debian's `pysiogame`.

Each file is named for what it shows, in a folder of its kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sensorium.data.picture_book.entries import Entry
from sensorium.data.picture_book.packages import Package, read_members
from sensorium.data.picture_book.words import accepted_names, article, describe

CARDS = Package(
    name="pysiogame",
    version="4.20.01-1",
    sha256="6b22766dfd8ef3a046c2665fe2598ac8a1ecee3d331bda38accf53de65bc59bf",
)
CARD_ROOT = "usr/share/games/pysiogame/res/images/art4apps/"
# Folder -> category, None where its members are of several kinds. "actions" has no things.
CATEGORY_OF: dict[str, str | None] = {
    "animals": "animal", "body": "person", "clothes_n_accessories": "clothing",
    "construction": None, "food": "food", "fruit_n_veg": "food", "jobs": "person",
    "nature": None, "people": "person", "sport": None, "transport": None,
}  # fmt: skip
KIND_OF = {"blackbird": "bird", "crow": "bird", "dove": "bird", "duck": "bird", "eagle": "bird",
           "flamingo": "bird", "goose": "bird", "hummingbird": "bird", "jay": "bird", "magpie": "bird",
           "owl": "bird", "parakeet": "bird", "parrot": "bird", "peacock": "bird", "penguin": "bird",
           "pigeon": "bird", "shrike": "bird", "sparrow": "bird", "swan": "bird", "vulture": "bird"}  # fmt: skip
# Doings, and things that the drawing shows only a person or a place for.
NOT_SHOWN = {
    "badge", "magic", "office", "hike", "hop", "jog", "jump", "race", "ride", "run", "squat", "stand",
    "stretch", "swim", "throw", "walk", "whistle", "win", "pool", "step", "smoke", "mast", "pedal",
    "land", "sea", "slice", "spread", "sprinkle", "lunch", "feast", "friends", "mates", "tribe",
}  # fmt: skip


def card_entries(deb: Path) -> Iterator[Entry]:
    """The cards that show a thing with a name, in the order of their paths."""
    files = {
        path.removeprefix(CARD_ROOT): content
        for path, content in read_members(deb, (".jpg", ".png"))
        if path.startswith(CARD_ROOT)
    }
    for path in sorted(files):
        folder, _, stem = path.rpartition(".")[0].partition("/")
        text = stem.replace("_", " ")
        naming = describe(f"{article(text)} {text}".strip()) if text not in NOT_SHOWN else None
        if naming is None or folder not in CATEGORY_OF:
            continue
        yield Entry(
            id=f"card/{folder}/{stem}",
            caption=naming.caption,
            name=naming.name,
            accepted=accepted_names(naming, KIND_OF.get(text)),
            category=CATEGORY_OF[folder],
            style="drawing",
            source=f"{CARDS.name} {CARDS.version}",
            licence="GPL-3+",
            content=files[path],
        )
