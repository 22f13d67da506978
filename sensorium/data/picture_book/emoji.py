"""Emoji sets as named pictures: one drawing of each thing in several styles.

Drawings come from icon sets in Iconify JSON (SVG bodies by name) or as pictures; names, sub-groups and
Chinese names from `emojibase-data` (Unicode CLDR). Both are data inside npm packages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sensorium.core.config import Config
from sensorium.core.errors import MediaError
from sensorium.data.picture_book.entries import Entry
from sensorium.data.picture_book.packages import Package, read_tgz, read_tgz_members
from sensorium.data.picture_book.svg import render_svg
from sensorium.data.picture_book.words import Naming, accepted_names, article, describe

Draw = Callable[[], bytes]
"""Gives an encoded picture; raises a MediaError for one that cannot be drawn."""

NAMES = Package(
    name="emojibase-data",
    version="17.0.0",
    sha256="d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    npm=True,
)


class EmojiStyle(Config):
    """One icon set."""

    package: Package
    licence: str
    rasters: bool = False
    """`assets/<code points>.webp` instead of Iconify JSON."""
    heldout: bool = False
    """A style that no training sees: how well do drawings by another hand fare?"""

    @property
    def style(self) -> str:
        return self.package.name.rpartition("/")[2]


def _set(name: str, version: str, sha256: str, licence: str, *, heldout: bool = False) -> EmojiStyle:
    package = Package(name=f"@iconify-json/{name}", version=version, sha256=sha256, npm=True)
    return EmojiStyle(package=package, licence=licence, heldout=heldout)


STYLES = (
    _set("noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad", "Apache-2.0"),
    _set("noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37", "Apache-2.0"),
    _set("twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7", "CC-BY-4.0"),
    _set("emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e", "CC-BY-4.0"),
    _set("fluent-emoji", "1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b", "MIT"),
    _set("fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175", "MIT"),
    _set("emojione-v1", "1.2.3", "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3", "CC-BY-SA-4.0"),
    EmojiStyle(
        package=Package(name="@lobehub/fluent-emoji-3d", version="1.1.0", npm=True,
                        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"),
        licence="MIT",
        rasters=True,
    ),
    _set("openmoji", "1.2.29", "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5", "CC-BY-SA-4.0", heldout=True),
)  # fmt: skip

# Unicode sub-group -> category, None where members are of several kinds. Sub-groups that are
# not listed are left out: letters, keys, punctuation and families are no things to name.
CATEGORY_OF: dict[str, str | None] = {
    "face-smiling": None, "face-affection": None, "face-tongue": None, "face-hand": None,
    "face-neutral-skeptical": None, "face-sleepy": None, "face-unwell": None, "face-hat": None,
    "face-glasses": None, "face-concerned": None, "face-negative": None, "face-costume": None,
    "cat-face": None, "heart": "symbol", "emotion": None,
    "hand-fingers-open": "person", "hand-fingers-partial": "person", "hand-prop": "person",
    "hand-single-finger": "person", "hand-fingers-closed": "person", "hands": "person",
    "body-parts": "person", "person": "person", "person-role": "person",
    "person-fantasy": "person", "person-activity": "person", "person-sport": "person",
    "animal-mammal": "animal", "animal-bird": "animal", "animal-amphibian": "animal",
    "animal-reptile": "animal", "animal-marine": "animal", "animal-bug": "animal",
    "plant-flower": "plant", "plant-other": "plant",
    "food-fruit": "food", "food-vegetable": "food", "food-prepared": "food", "food-asian": "food",
    "food-sweet": "food", "drink": "food", "dishware": "household item",
    "place-map": None, "place-geographic": None, "place-building": "building",
    "place-religious": "building", "place-other": None,
    "transport-ground": "vehicle", "transport-water": "vehicle", "transport-air": "vehicle",
    "hotel": None, "time": "household item", "sky-weather": "sky", "event": None,
    "award-medal": None, "sport": "game", "game": "game", "arts-crafts": None,
    "clothing": "clothing", "sound": None, "music": None,
    "musical-instrument": "musical instrument", "phone": "electronics",
    "computer": "electronics", "light-video": None, "book-paper": None, "money": "symbol",
    "mail": None, "writing": "household item", "office": "household item", "lock": None,
    "tool": "tool", "science": None, "medical": None, "household": "household item",
    "other-object": None, "transport-sign": "symbol", "warning": "symbol", "arrow": "symbol",
    "religion": "symbol", "zodiac": "symbol", "geometric": "symbol", "country-flag": "flag",
}  # fmt: skip
# Members of a sub-group that are not of its category.
EXCEPTIONS: dict[str, str | None] = {
    "fuel pump": None, "police car light": None, "horizontal traffic light": None,
    "vertical traffic light": None, "stop sign": "symbol", "construction": None, "motorway": None,
    "railway track": None, "oil drum": None, "bus stop": None, "wheel": None, "anchor": None,
    "ring buoy": None, "seat": None, "parachute": None, "fire": None, "droplet": None,
    "water wave": None, "umbrella": None, "closed umbrella": None, "umbrella on ground": None,
    "snowman": None, "snowman without snow": None, "paw prints": None, "feather": None,
    "spiral shell": None, "spider web": None, "microbe": None, "nest with eggs": None,
    "manual wheelchair": None, "motorized wheelchair": None, "crutch": None, "mushroom": "plant",
    "teddy bear": "game", "glasses": "clothing", "shopping bags": None, "gem stone": None,
    "ring": None, "lipstick": None, "prayer beads": None, "rescue worker’s helmet": "clothing",
    "stadium": "building", "house": "building", "coral": "animal", "empty nest": None,
    "salt": "food", "bento box": "food", "takeout box": "food", "ice": None,
}  # fmt: skip
# What all members of a sub-group may also be called.
KIND_OF = {"animal-bird": "bird", "plant-flower": "flower", "country-flag": "flag", "time": "clock",
           "heart": "heart", "arrow": "arrow"}  # fmt: skip
# Many alike teach little more: every n-th is kept.
EVERY = {"country-flag": 12, "time": 3, "zodiac": 3, "arrow": 2, "person-role": 2}
NOT_CLOCKS = {"alarm clock", "hourglass done", "hourglass not done", "stopwatch", "watch",
              "timer clock", "mantelpiece clock"}  # fmt: skip


def emoji_entries(style: EmojiStyle, file: Path, names_file: Path) -> Iterator[Entry]:
    """The pictures of one style that have a name."""
    drawing = _rasters(file) if style.rasters else _icons(file)
    seen: dict[str, int] = {}
    for row in _named(names_file):
        slug = _slug(row["label"])
        draw = drawing(row)
        naming = _naming(row["label"], row["subgroup"])
        if draw is None or naming is None:
            continue
        number = seen[row["subgroup"]] = seen.get(row["subgroup"], -1) + 1
        if number % EVERY.get(row["subgroup"], 1):
            continue
        try:
            picture = draw()
        except MediaError:
            continue
        kind = KIND_OF.get(row["subgroup"]) if row["label"] not in NOT_CLOCKS else None
        yield Entry(
            id=f"emoji/{style.style}/{slug}",
            caption=naming.caption,
            name=naming.name,
            accepted=sorted({*accepted_names(naming, kind), *([row["label"]] if kind else [])}),
            category=EXCEPTIONS.get(row["label"], CATEGORY_OF[row["subgroup"]]),
            style="drawing",
            source=f"{style.package.name} {style.package.version}",
            licence=style.licence,
            caption_zh=row["zh"],
            split="heldout" if style.heldout else "train",
            content=picture,
        )


def _icons(file: Path) -> Callable[[dict[str, Any]], Draw | None]:
    """What draws an emoji from a set in Iconify JSON; None for one that the set has not."""
    content = json.loads(read_tgz(file, ("icons.json",))["icons.json"])
    aliases = {k: v["parent"] for k, v in content.get("aliases", {}).items() if set(v) == {"parent"}}

    def find(row: dict[str, Any]) -> Draw | None:
        slug = _slug(row["label"])
        icon = content["icons"].get(slug) or content["icons"].get(aliases.get(slug, ""))
        return None if icon is None else lambda: render_svg(_document(icon, content), side_px=256)

    return find


def _rasters(file: Path) -> Callable[[dict[str, Any]], Draw | None]:
    """The same for pictures named by code points, with or without variation selectors."""
    pictures = {
        path.removeprefix("assets/").removesuffix(".webp").replace("-fe0f", ""): content
        for path, content in read_tgz_members(file, ".webp")
    }

    def find(row: dict[str, Any]) -> Draw | None:
        content = pictures.get(row["hexcode"].lower().replace("-fe0f", ""))
        return None if content is None else lambda: content

    return find


def _named(file: Path) -> Iterator[dict[str, Any]]:
    """Label, sub-group, code points and Chinese name of every emoji that shows a listed kind of thing."""
    files = read_tgz(file, ("en/data.json", "zh/data.json", "meta/groups.json"))
    subgroups = json.loads(files["meta/groups.json"])["subgroups"]
    chinese = {row["hexcode"]: row["label"] for row in json.loads(files["zh/data.json"])}
    for row in json.loads(files["en/data.json"]):
        subgroup = subgroups.get(str(row.get("subgroup")))
        if subgroup in CATEGORY_OF:
            yield {"label": row["label"], "subgroup": subgroup, "hexcode": row["hexcode"], "zh": chinese.get(row["hexcode"], "")}


def _slug(label: str) -> str:
    """The key of an icon set: `jack-o-lantern`, `mans-shoe`."""
    plain = re.sub(r"[’'.“”]", "", label.lower()).replace("ñ", "n").replace("é", "e")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _naming(label: str, subgroup: str) -> Naming | None:
    """A name as a person would say it: `dog` for `dog face`, `flag` for every flag."""
    if subgroup == "country-flag":
        return Naming("a flag", "flag", "flag")
    if subgroup == "time" and label not in NOT_CLOCKS:
        return Naming("a clock", "clock", "clock")
    text = re.sub(r"\(.*?\)", "", label.lower().replace("’", "'")).replace(":", " ").strip()
    if subgroup.startswith(("animal", "cat-face")):
        text = re.sub(r" face\b", "", text)
    # "Man cook" is a cook, "person bowing" a person who bows.
    text = re.sub(r"^(man|woman|person) (?=\w+$)(?!\w+ing$)", "", text)
    text = re.sub(r" (symbol|button|sign)$", "", text)
    return describe(f"{article(text)} {text}".strip()) if text else None


def _document(icon: dict[str, Any], content: dict[str, Any]) -> str:
    """A whole SVG around an icon's body."""
    width = icon.get("width", content.get("width", 16))
    height = icon.get("height", content.get("height", 16))
    left, top = icon.get("left", 0), icon.get("top", 0)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )
