"""Every decoder of the matrix against its reference, from pictures to text: one model each, saved by the reference.

Pictures have odd shapes and go through the reference's own preparation; prompts have them at the start, in the middle
and at the end, one to three, alone, padded on either side and packed into one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from anyres_cases import Case, encode, layouts, our_logits, our_processor
from decoders import DECODERS, PROMPTS, Decoder
from matrix import COUNTS, LAYOUTS, ORACLES, POSITIONS

from sensorium.inference.engine import Engine
from sensorium.interop.hf import export_hf, import_hf, same_tensors
from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.text.byte_tokenizer import byte_tokenizer

LENGTH = 8
SHOWS = {"start": ("start", "1"), "middle": ("middle",), "end": ("end",), "two": ("2",), "three": ("3",)}


@dataclass(frozen=True)
class Pair:
    """One checkpoint, as the reference and as ours, and what both were asked."""

    name: str
    folder: Path
    theirs: Any
    ours: MultimodalModel
    cases: dict[str, Case]

    @property
    def how(self) -> Decoder:
        return DECODERS[self.name]


def config_of(ours: MultimodalModel, markers: tuple[str, ...]) -> ModelConfig:
    return ours.config.model_copy(update={"image_markers": markers}) if markers else ours.config


@pytest.fixture(scope="module", params=DECODERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    name: str = request.param
    how, folder = DECODERS[name], tmp_path_factory.mktemp("matrix") / "hf"
    torch.manual_seed(0)
    theirs, eyes = how.save(folder), how.eyes()
    byte_tokenizer().save(folder)
    eyes.save_pretrained(folder)
    ours = how.read(theirs, folder)
    cases: dict[str, Case] = {}
    for title, prompt in PROMPTS.items():
        if title in how.without:
            continue
        example = encode(config_of(ours, how.markers), prompt)
        given = how.inputs(theirs, prompt, example, eyes)
        with torch.no_grad():
            cases[title] = Case(example, given, theirs(**given, use_cache=False).logits[0])
    return Pair(name, folder, theirs, ours, cases)


def test_the_matrix_is_whole() -> None:
    """Every position, count and layout that is not excused has a case here."""
    shown = {aspect for aspects in SHOWS.values() for aspect in aspects}
    assert shown == {*POSITIONS, *COUNTS}
    for name in DECODERS:
        assert not ORACLES[name].cannot.keys() & {*shown, *LAYOUTS, "greedy"}


def test_logits(pair: Pair, record: Callable[..., None]) -> None:
    titles = {id(case): title for title, case in pair.cases.items()}
    for layout, case, got_TV in layouts(pair.ours, list(pair.cases.values())):
        shown = SHOWS.get(titles[id(case)], ()) if layout == "alone" else (layout,)
        record(pair.name, *shown, ours=got_TV, theirs=case.logits_TV)


def test_pictures_count(pair: Pair) -> None:
    """The logits above are not those of the text alone."""
    case = pair.cases["start"]
    media = case.example.media["image"]
    seen = media.pixels_NCHW.clone()
    try:
        media.pixels_NCHW.copy_(255 - seen)
        other_TV = our_logits(pair.ours, [[case.example]])[0]
    finally:
        media.pixels_NCHW.copy_(seen)
    assert float((other_TV - case.logits_TV)[-1].abs().max()) > 1e-2


def test_greedy_text(pair: Pair, record: Callable[..., None]) -> None:
    """All prompts together, padded on the left, and each alone."""
    engine = Engine(pair.ours, our_processor(pair.ours.config))
    engine.processor.stop_ids = set()
    cases = list(pair.cases.values())
    together = engine.generate([case.example for case in cases], max_tokens=LENGTH)
    write = stepwise if pair.how.steps else generated
    for case, got in zip(cases, together, strict=True):
        assert got == write(pair.theirs, case)
        assert engine.generate([case.example], max_tokens=LENGTH) == [got]
    assert len({tuple(text) for text in together}) > 1
    record(pair.name, "greedy")


def generated(theirs: Any, case: Any) -> list[int]:
    made = theirs.generate(**case.inputs, max_new_tokens=LENGTH, min_new_tokens=LENGTH, do_sample=False,
                           eos_token_id=-1, pad_token_id=0)  # fmt: skip
    return made[0].tolist()[-LENGTH:]


@torch.no_grad()
def stepwise(theirs: Any, case: Case) -> list[int]:
    """Greedy text by running the reference's whole sequence again for every token."""
    given = dict(case.inputs)
    for _ in range(LENGTH):
        if hasattr(theirs.model, "rope_deltas"):
            theirs.model.rope_deltas = None
        likeliest_11 = theirs(**given, use_cache=False).logits[:, -1:].argmax(dim=-1)
        given["input_ids"] = torch.cat([given["input_ids"], likeliest_11], dim=1)
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        if "mm_token_type_ids" in given:
            given["mm_token_type_ids"] = torch.nn.functional.pad(given["mm_token_type_ids"], (0, 1))
        if "image_attention_mask" in given:
            sees_1TM = given["image_attention_mask"]
            given["image_attention_mask"] = torch.cat([sees_1TM, sees_1TM[:, -1:]], dim=1)
    return given["input_ids"][0, -LENGTH:].tolist()


@torch.no_grad()
def test_export(pair: Pair, tmp_path: Path, record: Callable[..., None]) -> None:
    """The reference loads what is written by a config made of ours, and agrees."""
    if "export" in ORACLES[pair.name].cannot:
        pytest.skip(ORACLES[pair.name].cannot["export"])
    import_hf(pair.folder, tmp_path / "ours")
    # Not by the config that it came with.
    (tmp_path / "ours" / "foreign.json").unlink()
    export_hf(tmp_path / "ours", tmp_path / "back", pair.how.family)
    again, info = type(pair.theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    again.eval()
    # IDEFICS keeps added words in a matrix of their own, which ours joins to the other.
    assert pair.name == "idefics" or same_tensors(pair.folder, tmp_path / "back")
    for title in ("middle", "three"):
        case = pair.cases[title]
        given = pair.how.inputs(again, PROMPTS[title], case.example, pair.how.eyes())
        got_TV = our_logits(pair.ours, [[case.example]])[0]
        record(pair.name, "export", ours=got_TV, theirs=again(**given, use_cache=False).logits[0])
