"""From a title to a caption, a name, and the names that count as right answers."""

from __future__ import annotations

import re
from dataclasses import dataclass

ARTICLES = {"a", "an", "the", "some", "this", "one", "two", "three", "several", "many"}
# "a bunch of grapes": what matters follows "of".
CONTAINERS = {
    "pair", "bunch", "head", "slice", "piece", "couple", "set", "stack", "pile", "group", "kind",
    "type", "stick", "loaf", "cup", "glass", "bottle", "bowl", "box", "basket", "bag", "jar", "can",
    "row", "sheet", "roll", "cluster", "half",
}  # fmt: skip
LINKS = {
    "of", "with", "on", "in", "for", "and", "at", "by", "that", "which", "who", "from", "to", "is",
    "has", "can", "used", "wearing", "holding", "riding", "sitting", "standing", "eating", "or",
    "called", "made", "making", "playing", "flying", "being", "without", "under", "over",
}  # fmt: skip
# Words that say how a thing is drawn, not what it is.
STYLE = {
    "bw", "color", "colour", "simple", "clipart", "cliparts", "icon", "symbol", "outline", "shiny",
    "alt", "generic", "style", "version", "svg", "v", "r", "mini", "icons", "aiga", "etiquette",
    "contour", "ganson", "various", "rpg", "map", "elements",
}  # fmt: skip
SYNONYMS: tuple[frozenset[str], ...] = tuple(
    frozenset(group.split("|"))
    for group in (
        "airplane|plane|aeroplane|aircraft", "bicycle|bike", "car|automobile|auto",
        "motorcycle|motorbike", "ship|boat", "truck|lorry", "tv|television",
        "phone|telephone", "rabbit|bunny", "cow|cattle", "bug|insect",
        "pants|trousers", "glasses|eyeglasses|spectacles", "cookie|biscuit", "cup|mug",
        "couch|sofa", "lightbulb|bulb|light bulb", "house|home", "gift|present",
        "smiley|smiley face", "computer|pc", "photo|photograph|picture", "sweater|jumper",
        "policeman|police officer", "stone|rock",
    )
)  # fmt: skip
# What a thing may be called too, but not the other way round: a rose is a flower.
BROADER: dict[str, tuple[str, ...]] = {
    "jet": ("airplane", "plane", "aircraft"), "bull": ("cow", "cattle"), "ox": ("cow", "cattle"),
    "hen": ("chicken",), "rooster": ("chicken",), "beetle": ("insect", "bug"), "cap": ("hat",),
    "jeans": ("pants", "trousers"), "sneaker": ("shoe",), "boot": ("shoe",), "soda": ("drink",),
    "bulb": ("lamp",), "smiley": ("face",), "pistol": ("gun",), "rifle": ("gun",),
    "kitten": ("cat",), "puppy": ("dog",), "pony": ("horse",), "rose": ("flower",),
    "tulip": ("flower",), "daisy": ("flower",), "sunflower": ("flower",),
}  # fmt: skip
COLORS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
    "grey", "gray", "silver", "golden", "violet",
)  # fmt: skip
# Last words that are no thing: such titles name nothing.
NOT_THINGS = {
    "drawn", "shaded", "rules", "ad", "ads", "example", "part", "corner", "down", "up", "left",
    "right", "sacred", "cloudy", "have", "means", "half", "flat", "general", "stands", "number",
    "sketch", "clothing", "smoking", "transportation", "protection", "no", "not", "open", "new",
    "old", "small", "big", "large", "little", "round", "square", "full", "empty", "off", "only",
    "front", "back", "side", "top", "bottom", "inside", "outside", "first", "second", "third",
    "radiation", "radiations", "ac", "alternate", "basic", "plain", "different", "mad", "sad",
    "happy", "sharp", "plus", "minus", "times", "equals", "greater", "less", "divided", "black",
    "white", "come", "sortie", "issue", "ripe", "lam", "sung", "premiers", "interior", "remember",
    "break", "love", "experience", "gym", "indoor", "access", "war", "illustration", "people", "parking", "generic", "moderate", "heavy", "slight", "danger",
}  # fmt: skip
# Titles of authors who wrote French or Italian.
GLOSSARY = {
    "cavallo": "horse", "cigno": "swan", "camicia": "shirt", "glace": "ice cream", "cane": "dog",
    "gatto": "cat", "gallina": "hen", "gallo": "rooster", "pesce": "fish", "mucca": "cow",
    "coccinelle": "ladybug", "ours": "bear", "couronne": "crown", "fleur": "flower", "arbre": "tree",
    "chat": "cat", "chien": "dog", "maison": "house", "poisson": "fish", "oiseau": "bird",
    "poire": "pear", "pomme": "apple", "cerise": "cherry", "fraise": "strawberry",
    "citron": "lemon", "ananas": "pineapple", "banane": "banana", "raisin": "grapes",
    "tomate": "tomato", "carotte": "carrot", "gateau": "cake", "fromage": "cheese", "pain": "bread",
    "oeuf": "egg", "poulet": "chicken", "biere": "beer", "cafe": "coffee", "verre": "glass",
    "bouteille": "bottle", "coq": "rooster", "vache": "cow", "cochon": "pig", "mouton": "sheep",
    "lapin": "rabbit", "cheval": "horse", "papillon": "butterfly", "abeille": "bee",
    "farfalla": "butterfly", "ape": "bee", "albero": "tree", "fiore": "flower", "rosa": "rose",
    "mela": "apple", "pera": "pear", "uva": "grapes", "ciliegia": "cherry", "ciliegie": "cherries",
    "fragola": "strawberry", "limone": "lemon", "arancia": "orange", "anguria": "watermelon",
    "melone": "melon", "pomodoro": "tomato", "carota": "carrot", "peperone": "pepper",
    "melanzana": "eggplant", "zucca": "pumpkin", "fungo": "mushroom", "torta": "cake",
    "gelato": "ice cream", "formaggio": "cheese", "pane": "bread", "uovo": "egg", "vino": "wine",
    "birra": "beer", "bottiglia": "bottle", "bicchiere": "glass", "tazza": "cup",
    "martello": "hammer", "cacciavite": "screwdriver", "pinza": "pliers", "pinze": "pliers",
    "sega": "saw", "chiave": "wrench", "scala": "ladder", "trapano": "drill", "pennello": "brush",
    "mattone": "brick", "casa": "house", "chiesa": "church", "torre": "tower", "sedia": "chair",
    "tavolo": "table", "letto": "bed", "lampada": "lamp", "porta": "door", "finestra": "window",
    "divano": "sofa", "scarpa": "shoe", "scarpe": "shoes", "cappello": "hat", "pantaloni": "pants",
    "gonna": "skirt", "giacca": "jacket", "cravatta": "tie", "guanto": "glove", "guanti": "gloves",
    "occhiali": "glasses", "orologio": "clock", "telefono": "telephone", "auto": "car",
    "automobile": "car", "camion": "truck", "treno": "train", "aereo": "airplane", "nave": "ship",
    "barca": "boat", "bicicletta": "bicycle", "bici": "bicycle", "moto": "motorcycle",
    "autobus": "bus", "trattore": "tractor", "palla": "ball", "pallone": "ball",
    "chitarra": "guitar", "tromba": "trumpet", "pianoforte": "piano", "tamburo": "drum",
    "violino": "violin", "libro": "book", "matita": "pencil", "penna": "pen", "forbici": "scissors",
    "chapeau": "hat", "chaussure": "shoe", "voiture": "car", "avion": "airplane", "bateau": "boat",
    "velo": "bicycle", "livre": "book", "crayon": "pencil", "ciseaux": "scissors", "cle": "key",
    "etoile": "star", "soleil": "sun", "lune": "moon", "nuage": "cloud", "sole": "sun",
    "luna": "moon", "stella": "star", "nuvola": "cloud", "uomo": "man", "donna": "woman",
    "bambino": "child", "ragazza": "girl", "ragazzo": "boy", "homme": "man", "femme": "woman",
    "tartaruga": "turtle", "elefante": "elephant", "leone": "lion", "tigre": "tiger",
    "scimmia": "monkey", "orso": "bear", "lupo": "wolf", "volpe": "fox", "coniglio": "rabbit",
    "topo": "mouse", "rana": "frog", "serpente": "snake", "coccodrillo": "crocodile",
    "delfino": "dolphin", "balena": "whale", "squalo": "shark", "aquila": "eagle",
    "anatra": "duck", "oca": "goose", "pinguino": "penguin", "gufo": "owl", "maiale": "pig",
    "pecora": "sheep", "capra": "goat", "asino": "donkey", "lumaca": "snail", "ragno": "spider",
    "formica": "ant", "coccinella": "ladybug", "chiocciola": "snail", "ruota": "wheel",
    "forchetta": "fork", "coltello": "knife", "cucchiaio": "spoon", "piatto": "plate",
    "pentola": "pot", "candela": "candle", "ombrello": "umbrella", "borsa": "bag",
    "valigia": "suitcase", "anello": "ring", "corona": "crown", "bandiera": "flag",
    "trifoglio": "clover", "quadrifoglio": "clover", "cuore": "heart", "coeur": "heart",
}  # fmt: skip
FOREIGN_AUTHORS = ("balin", "architetto", "guillou", "bersac", "doucet", "jacq", "nicolas", "omic")


@dataclass(frozen=True, slots=True)
class Naming:
    """What a picture shows, in words."""

    caption: str
    """A phrase with its article: `a red flower`."""
    name: str
    """The phrase without article and trailing clause: `red flower`."""
    head: str
    """The noun alone: `flower`."""


def clean_title(title: str, author: str | None, dictionary: frozenset[str]) -> str:
    """A clip-art title or file name as plain English words, or '' where none are left.

    Numbers, authors' names (also cut short, as file names cut them), styles and words of
    no dictionary go.
    """
    words = re.findall(r"[A-Za-zÀ-ÿ']+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", title.replace("_", " ")))
    names = re.findall(r"[a-z]+", (author or "").lower())
    foreign = any(mark in (author or "").lower() for mark in FOREIGN_AUTHORS)
    kept: list[str] = []
    for word in (w.lower() for w in words):
        if any(n.startswith(word) and len(word) >= 2 for n in names) or word in STYLE:
            continue
        if word in GLOSSARY and (foreign or word not in dictionary):
            kept.extend(GLOSSARY[word].split())
        elif word in dictionary and (not foreign or len(word) > 3) and len(word) > 1:
            kept.append(word)
    while kept and kept[-1] in LINKS | ARTICLES:
        kept.pop()
    return " ".join(kept)


def describe(text: str) -> Naming | None:
    """Caption, name and head noun of an English phrase or sentence."""
    clause = re.split(r"[.,;:!?(—–]| - |…", text.strip())[0].strip()
    words = list(re.findall(r"[A-Za-z'’-]+", clause.replace("’", "'")))
    lowered = [w.lower() for w in words]
    start = 0
    while start < len(words) - 1 and lowered[start] in ARTICLES:
        start += 1
    body, low = words[start:], lowered[start:]
    for i, word in enumerate(low[:4]):
        if word == "of" and i and low[i - 1] in CONTAINERS and i + 1 < len(low):
            skip = i + 1
            while skip < len(low) - 1 and low[skip] in ARTICLES:
                skip += 1
            body, low = body[skip:], low[skip:]
            break
    # "red and white flower" goes on; "dog and cat" stops at the dog.
    stop = next(
        (i for i, w in enumerate(low)
         if w in LINKS and i and not (w == "and" and low[i - 1] in COLORS)), len(low))  # fmt: skip
    low = [w.removesuffix("'s") for w in low[:stop]][-4:]
    while len(low) > 1 and low[-1] in COLORS and low[-1] != "orange":
        low = [low[-1], *low[:-1]]
        if low[-1] in COLORS:
            break
    if not low or not _is_thing(low[-1]):
        return None
    name = " ".join(low)
    caption = " ".join(words[:12])
    if start == 0 and lowered[0] not in ARTICLES:
        caption = f"{article(name)} {name}".strip()
    return Naming(caption=caption[0].lower() + caption[1:], name=name, head=low[-1])


def _is_thing(word: str) -> bool:
    """Whether a last word can be a noun that names something."""
    if word in THINGS_ANYWAY:
        return True
    return len(word) > 2 and word not in NOT_THINGS and not word.endswith(("ed", "ing"))


def article(name: str) -> str:
    """`a`, `an`, or nothing for plurals and substances."""
    last = name.split()[-1]
    if last in MASS or (last.endswith("s") and not last.endswith(("ss", "us", "is"))):
        return ""
    return "an" if name[0] in "aeio" or name.startswith("um") else "a"


THINGS_ANYWAY = {"bed", "seed", "reed", "sled", "ring", "king", "wing", "string", "building", "painting",
                  "lightning", "earring", "ox", "tv", "wedding ring"}  # fmt: skip
MASS = {
    "bread", "rice", "water", "milk", "cheese", "fire", "lightning", "snow", "rain", "music",
    "butter", "coffee", "tea", "beer", "wine", "meat", "corn", "garlic", "lettuce", "clothing",
    "grass", "bacon", "juice", "money", "broccoli", "celery", "fruit", "furniture", "sushi",
}  # fmt: skip


def singular(word: str) -> str:
    """A naive singular: enough to let `flowers` count for `flower`."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("shes", "ches", "xes", "sses")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def accepted_names(naming: Naming, kind: str | None) -> list[str]:
    """Every answer that names the picture rightly: the phrase, its noun, synonyms, and the
    broader kind a person would settle for (`bird` for a lorikeet)."""
    names = {naming.name, naming.head, singular(naming.head)}
    if kind:
        names.add(kind)
    for group in SYNONYMS:
        if names & group:
            names |= group
    for name in sorted(names):
        names.update(BROADER.get(name, ()))
    return sorted(n for n in names if len(n) > 1)
