"""Folder of a package -> category, and the broader kind some folders stand for."""

from __future__ import annotations

# Only kinds that a person can tell apart by looking: signs and symbols are one, and holiday
# decorations, which are pumpkins, trees or candles, are none.
CATEGORIES = (
    "animal", "food", "plant", "clothing", "vehicle", "building", "tool", "household item",
    "electronics", "musical instrument", "game", "person", "flag", "symbol", "sky", "map",
)  # fmt: skip

# Longest matching prefix wins; None leaves a picture without a category.
STAMP_FOLDERS: dict[str, str | None] = {
    "animals": "animal",
    "clothes": "clothing",
    "food": "food",
    "hobbies/music": "musical instrument",
    "hobbies": None,
    "household": "household item",
    "household/electronics": "electronics",
    "household/tools": "tool",
    "household/arttools": "tool",
    "medical": "tool",
    "military": None,
    "military/vehicles": "vehicle",
    "military/ammunition": None,
    "naturalforces": "sky",
    "people": "person",
    "people/toys": "game",
    "plants": "plant",
    "seasonal": None,
    "space": "sky",
    "sports": "game",
    "symbols": "symbol",
    "symbols/chess": "game",
    "symbols/money": "symbol",
    "town": "building",
    "town/flags": "flag",
    "town/roadsigns": "symbol",
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
    "decorations": None,
    "education": None,
    "electronics": "electronics",
    "electronics/bulb": "household item",
    "food": "food",
    "geography": "map",
    "geography/astronomy": "sky",
    "office": "household item",
    "people": "person",
    "people/clothing": "clothing",
    "people/bodypart": "person",
    "plants": "plant",
    "recreation": None,
    "recreation/music": "musical instrument",
    "recreation/sports": "game",
    "recreation/games": "game",
    "recreation/toys": "game",
    "recreation/holiday": None,
    "recreation/party": None,
    "science": None,
    "science/astronomy": "sky",
    "shapes": "symbol",
    "shapes/jigsaw": "game",
    "signs_and_symbols": None,
    "signs_and_symbols/flags": "flag",
    "signs_and_symbols/flags/semaphore": "symbol",
    "signs_and_symbols/map_symbols": None,
    "signs_and_symbols/weather": "sky",
    "signs_and_symbols/clocks": "household item",
    "signs_and_symbols/hazard": "symbol",
    "signs_and_symbols/money": "symbol",
    "tools": "tool",
    "transportation": "vehicle",
    "transportation/roadsigns": "symbol",
    "transportation/aiga-symbols": "symbol",
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
