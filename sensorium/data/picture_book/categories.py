"""Folder of a package -> category, and the broader kind some folders stand for."""

from __future__ import annotations

CATEGORIES = (
    "animal", "food", "plant", "clothing", "vehicle", "building", "tool", "household item",
    "electronics", "musical instrument", "sport", "toy", "person", "flag", "sign", "symbol",
    "weather", "space", "decoration", "map",
)  # fmt: skip

# Longest matching prefix wins; None leaves a picture without a category.
STAMP_FOLDERS: dict[str, str | None] = {
    "animals": "animal",
    "clothes": "clothing",
    "food": "food",
    "hobbies/music": "musical instrument",
    "hobbies": "toy",
    "household": "household item",
    "household/electronics": "electronics",
    "household/tools": "tool",
    "household/arttools": "tool",
    "medical": "tool",
    "military": "vehicle",
    "military/ammunition": None,
    "naturalforces": "weather",
    "people": "person",
    "people/toys": "toy",
    "plants": "plant",
    "seasonal": "decoration",
    "space": "space",
    "sports": "sport",
    "symbols": "symbol",
    "symbols/chess": "toy",
    "symbols/money": "symbol",
    "town": "building",
    "town/flags": "flag",
    "town/roadsigns": "sign",
    "vehicles": "vehicle",
}
CLIPART_FOLDERS: dict[str, str | None] = {
    "animals": "animal",
    "buildings": "building",
    "buildings/furniture": "household item",
    "computer": "electronics",
    "computer/icons": None,
    "computer/buttons": None,
    "containers": "household item",
    "decorations": "decoration",
    "education": "household item",
    "electronics": "electronics",
    "electronics/bulb": "household item",
    "food": "food",
    "geography": "map",
    "geography/astronomy": "space",
    "office": "household item",
    "people": "person",
    "people/clothing": "clothing",
    "people/bodypart": "person",
    "plants": "plant",
    "recreation": None,
    "recreation/music": "musical instrument",
    "recreation/sports": "sport",
    "recreation/games": "toy",
    "recreation/toys": "toy",
    "recreation/holiday": "decoration",
    "recreation/party": "decoration",
    "science": "tool",
    "science/astronomy": "space",
    "shapes": "symbol",
    "shapes/jigsaw": "toy",
    "signs_and_symbols": "symbol",
    "signs_and_symbols/flags": "flag",
    "signs_and_symbols/flags/semaphore": "symbol",
    "signs_and_symbols/map_symbols": "symbol",
    "signs_and_symbols/weather": "weather",
    "signs_and_symbols/clocks": "household item",
    "signs_and_symbols/hazard": "sign",
    "signs_and_symbols/money": "symbol",
    "tools": "tool",
    "transportation": "vehicle",
    "transportation/roadsigns": "sign",
    "transportation/aiga-symbols": "sign",
}
# Folders of abstract or thousandfold repeated drawings: (prefix, how many to keep).
CLIPART_QUOTA = (
    ("shapes/stars", 30),
    ("recreation/games/cards", 48),
    ("computer/icons/flat-theme", 0),
    ("computer/icons/lemon-theme", 0),
    ("computer/icons/etiquette-theme", 0),
    ("special", 0),
    ("signs_and_symbols/led", 0),
    ("computer/buttons", 0),
    ("logos", 0),
    ("shapes/flowchart", 0),
)
# What everything in a folder is called where titles do not say.
# The first matching prefix wins.
FOLDER_NAMES = {
    "geography/astronomy": "",
    "shapes/stars": "star",
    "recreation/games/cards": "playing card",
    "shapes/jigsaw": "puzzle piece",
    "shapes/arrows": "arrow",
    "shapes/callouts": "speech bubble",
    "people/smilies": "smiley face",
    "signs_and_symbols/flags": "flag",
    "people/stickmen": "stick figure",
    "geography": "map",
}
# The broader name a person would settle for.
KINDS = {
    "birds": "bird",
    "fish": "fish",
    "flowers": "flower",
    "trees": "tree",
    "hats": "hat",
    "dinosaurs": "dinosaur",
    "dinosaur": "dinosaur",
    "insects": "insect",
    "bugs": "insect",
    "dogs": "dog",
    "housecats": "cat",
    "horses": "horse",
    "bears": "bear",
    "mushrooms": "mushroom",
    "flags": "flag",
    "smilies": "smiley face",
    "planets": "planet",
    "houses": "house",
    "homes": "house",
    "roadsigns": "sign",
    "coins": "coin",
    "cards": "playing card",
    "stars": "star",
    "clocks": "clock",
}


def lookup(table: dict[str, str | None], folder: str) -> str | None:
    """The entry of the longest prefix of `folder`."""
    parts = folder.split("/")
    for length in range(len(parts), 0, -1):
        prefix = "/".join(parts[:length])
        if prefix in table:
            return table[prefix]
    return None


def broader_kind(folder: str) -> str | None:
    """The broader kind of the deepest folder that has one."""
    for part in reversed(folder.split("/")):
        if part in KINDS:
            return KINDS[part]
    return None


def folder_name(folder: str) -> str | None:
    """The common name of all pictures of a folder."""
    for prefix, name in FOLDER_NAMES.items():
        if folder == prefix or folder.startswith(prefix + "/"):
            return name
    return None
