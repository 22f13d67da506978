"""LLMs that read and write pictures as tokens against transformers' classes: logits, text, prompts, drawn pictures, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyres_cases import Case, layouts, picture, talk
from decoders import PROMPTS as ALL_PROMPTS
from picture_word_cases import SEED, Chance, Whole, as_picture, given, plain_logits, spans
from picture_word_models import FAMILIES
from test_matrix_function import LENGTH, SHOWS

from sensorium.api import Model
from sensorium.core.hands import Drawing, Making
from sensorium.core.picture_words import CODES
from sensorium.core.sample import Message, Part
from sensorium.inference.engine import Engine
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.text.tokenizer import Tokenizer

# A picture of three rows or columns looks like one of three colours to the references.
PROMPTS = ALL_PROMPTS | {"three": [(157, 55), "a ", (200, 9), "-", (40, 40), "?"], "side by side": [(9, 200), (40, 40)]}


@pytest.fixture(scope="module", params=FAMILIES)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    name, folder = request.param, tmp_path_factory.mktemp("words") / "hf"
    torch.manual_seed(0)
    theirs, tokenizer = FAMILIES[name].save(folder)
    eyes = FAMILIES[name].eyes()
    eyes.save_pretrained(folder)
    ours = Model(read_hf(folder), tokenizer)
    # A template without words, so that a picture may stand first or last.
    bare = Processor(ours.network.config, tokenizer, template="caption")
    cases: dict[str, Case] = {}
    for title in PROMPTS:
        example = bare.encode(talk(PROMPTS[title]))
        inputs = given(bare, PROMPTS[title], example, theirs, eyes)
        with torch.no_grad():
            cases[title] = Case(example, inputs, plain_logits(theirs, inputs))
    return Whole(name, folder, theirs, ours, cases)


def test_logits(whole: Whole, record: Callable[..., None]) -> None:
    titles = {id(case): title for title, case in whole.cases.items()}
    for layout, case, got_TV in layouts(whole.ours.network, list(whole.cases.values())):
        shown = SHOWS.get(titles[id(case)], ()) if layout == "alone" else (layout,)
        record(whole.name, *shown, ours=got_TV, theirs=case.logits_TV)


@torch.no_grad()
def test_words_of_pictures(whole: Whole, record: Callable[..., None]) -> None:
    """The ids that the model reads are those of the reference, and not the same for every picture."""
    if not whole.ours.processor.config.picture_words.shared:  # pyright: ignore[reportOptionalMemberAccess]
        pytest.skip("pictures are read by an encoder")
    for title in ("start", "middle"):
        case = whole.cases[title]
        read = whole.ours.network.read(collate([[case.example]], 0)).input_ids_BT[0]
        pixels = {k: v for k, v in case.inputs.items() if k in ("pixel_values", "image_sizes")}
        expected = whole.theirs.model.get_image_tokens(**pixels).flatten()
        places = torch.tensor(sorted(spans(whole.ours.processor, case.example)))
        assert torch.equal(read[places], expected.long())
        assert len(expected.unique()) > 3
        record(f"{whole.name}-draws", "codes")


def test_greedy_text(whole: Whole, record: Callable[..., None]) -> None:
    """All prompts together, and each alone. Words of codes are for pictures alone, with us and so with them."""
    engine = Engine(whole.ours.network, Processor(whole.ours.network.config, whole.ours.tokenizer))
    frames = engine.processor.frames
    assert frames is not None
    engine.processor.stop_ids = set()
    never = [*frames.words, frames.opening] if frames.shape.shared else [frames.opening]
    block(engine, frames.opening)
    cases = list(whole.cases.values())
    together = engine.generate([case.example for case in cases], max_tokens=LENGTH)
    for case, got in zip(cases, together, strict=True):
        made = whole.theirs.generate(**case.inputs, max_new_tokens=LENGTH, min_new_tokens=LENGTH, do_sample=False,
                                     eos_token_id=-1, pad_token_id=0, suppress_tokens=never)  # fmt: skip
        assert got == made[0].tolist()[-LENGTH:]
    assert engine.generate([cases[0].example], max_tokens=LENGTH) == [together[0]]
    assert len({tuple(text) for text in together}) > 1
    record(whole.name, "greedy")


def block(engine: Engine, token: int) -> None:
    """Let no picture begin."""
    artist: Any = engine.artist
    plain = artist.text_alone
    artist.text_alone = lambda logits_BV: plain(logits_BV).index_fill(-1, torch.tensor([token]), float("-inf"))


def theirs_tokenizer(whole: Whole) -> Any:
    from tokenizers import Tokenizer as RustTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    rust = RustTokenizer.from_str(whole.ours.tokenizer.rust.to_str())
    rust.encode_special_tokens = False
    begin = whole.family.begin
    if begin:
        rust.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, whole.ours.tokenizer.special_id(begin))])
    return PreTrainedTokenizerFast(tokenizer_object=rust, pad_token="<|endoftext|>", bos_token="<|im_start|>",
                                   sep_token=whole.family.sep, extra_special_tokens=whole.family.marks)  # fmt: skip


def test_prompts_and_pixels(whole: Whole, record: Callable[..., None]) -> None:
    """Ids, places and pixels are those of the reference's own processor, whatever a picture's shape."""
    processor = Processor(whole.ours.network.config, Tokenizer.load(whole.folder))
    eyes = whole.family.eyes()
    reference = whole.family.processor(theirs_tokenizer(whole), eyes)
    front, back = whole.family.around
    for size in ((40, 40), (5, 6), (200, 4), (4, 200), (61, 100)):
        example = processor.encode(talk([size, "what?"]), answer_next=True)
        text = f"{front}{whole.family.image}{whole.family.behind}what?{back}"
        asked = reference(images=[picture(size)], text=[text], return_tensors="pt")
        ids = torch.tensor(example.input_ids)
        ids[spans(processor, example)] = whole.ours.tokenizer.special_id(whole.family.image)
        assert ids.tolist() == torch.as_tensor(asked["input_ids"])[0].tolist()
        record(whole.name, "ids", "placeholders")
        if "image" in example.media:
            encoder: Any = processor.config.lane("image").encoder.build()
            if size[0] == size[1]:
                record(whole.name, "pixels", ours=encoder.normalise(example.media["image"].pixels_NCHW),
                       theirs=torch.as_tensor(asked["pixel_values"]).float())  # fmt: skip
            continue
        tokenizer: Any = whole.ours.network.picture_tokenizer
        plan = example.media[CODES].plans[0]
        pixels = as_picture(example.media[CODES].pixels_NCHW, plan)
        record(whole.name, "pixels", ours=tokenizer.to_values(pixels),
               theirs=torch.as_tensor(asked["pixel_values"])[..., : pixels.shape[-2], : pixels.shape[-1]].float())  # fmt: skip


@torch.no_grad()
def test_export(whole: Whole, tmp_path: Path, record: Callable[..., None]) -> None:
    """The reference loads what is written by a config made of ours, and agrees."""
    import_hf(whole.folder, tmp_path / "ours")
    (tmp_path / "ours" / "foreign.json").unlink()
    export_hf(tmp_path / "ours", tmp_path / "back", whole.name)
    again, info = type(whole.theirs).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert same_tensors(whole.folder, tmp_path / "back")
    for title in ("middle", "three"):
        case = whole.cases[title]
        record(whole.name, "export", ours=plain_logits(again.eval(), case.inputs), theirs=case.logits_TV)


def ask(text: str) -> tuple[Message, ...]:
    return (Message("user", (Part("text", text),)),)


def drawn(answer: Message) -> torch.Tensor:
    return torch.tensor(np.asarray(answer.content[0].value, dtype=int))


@pytest.mark.parametrize(("guidance", "temperature"), [(1.0, 0.0), (3.0, 0.0), (3.0, 0.8)])
@torch.no_grad()
def test_emu3_draws_what_the_reference_draws(whole: Whole, guidance: float, temperature: float, record: Callable[..., None]) -> None:
    """Tokens and pixels in rows, greedily and by chance with one seed, with and without a prompt that is led away from."""
    if whole.name != "emu3":
        pytest.skip("Emu3's")
    ours = Model(whole.ours.network, whole.ours.tokenizer)
    ours.processor = ours.engine.processor = Processor(ours.network.config, ours.tokenizer, template="emu3_gen")
    frames = ours.processor.frames
    assert frames is not None
    frame = frames.sized((16, 24))
    how = Drawing(temperature=temperature, guidance=guidance, negative="ugly")
    prompt, making = ours.processor.prompt(ask("a cat")), Making(draw=True, drawing=how, size=(16, 24), seed=SEED)
    said = ours.engine.generate([prompt], max_tokens=len(frame), making=making)[0]

    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        del row
        place = len(ids) - len(prompt) - len(frame.before)
        forced = (*frame.body, *frame.behind)[place]
        return frames.words if forced is None else [forced]

    def asked(text: str) -> torch.Tensor:
        return torch.tensor([[1, *ours.tokenizer.encode(text), *frame.before]])

    more = {"guidance_scale": guidance, "negative_prompt_ids": asked("ugly")} if guidance > 1 else {}
    rest = len(frame) - len(frame.before)
    made = whole.theirs.generate(asked("a cat"), max_new_tokens=rest, do_sample=False, eos_token_id=-1, pad_token_id=0,
                                 prefix_allowed_tokens_fn=allowed, logits_processor=[Chance(frames.words, temperature)], **more)[:, -rest:]  # fmt: skip
    assert said == [*frame.before, *made[0].tolist()]
    record("emu3-draws", "guidance" if guidance > 1 else "codes")
    values = whole.theirs.model.decode_image_tokens(torch.cat([made, made[:, -1:]], dim=1), height=2, width=3)
    (expected,) = whole.family.eyes().postprocess(values)["pixel_values"]
    answer = ours.answer([{"role": "user", "content": "a cat"}], max_tokens=len(frame), making=making)
    assert [part.type for part in answer.content] == ["image"]
    record("emu3-draws", "pictures", ours=drawn(answer), theirs=torch.tensor(np.asarray(expected, dtype=int)).reshape(16, 24, 3))
    if guidance > 1:
        plain = how.model_copy(update={"guidance": 1.0})
        alone = ours.engine.generate([prompt], max_tokens=len(frame), making=replace(making, drawing=plain))[0]
        assert said != alone, "guidance changed nothing"
    if temperature:
        greedy = how.model_copy(update={"temperature": 0.0})
        likely = ours.engine.generate([prompt], max_tokens=len(frame), making=replace(making, drawing=greedy))[0]
        assert said != likely, "chance changed nothing"


@torch.no_grad()
def test_janus_draws_what_the_reference_draws(whole: Whole, record: Callable[..., None]) -> None:
    """Codes and pixels, greedily and by chance with one seed, led away from padding; without guidance the reference fails."""
    if whole.name != "janus":
        pytest.skip("Janus'")
    ours = whole.ours
    prompt = ours.engine.artist.prompt(ask("a cat"), None)  # pyright: ignore[reportOptionalMemberAccess]
    boi = ours.tokenizer.special_id("<begin_of_image>")
    theirs = whole.theirs
    theirs.generation_config.generation_kwargs = {"boi_token_id": boi}
    theirs.generation_config.update(pad_token_id=0, bos_token_id=1, eos_token_id=None)
    seen: set[tuple[int, ...]] = set()
    for temperature in (0.0, 1.0):
        torch.manual_seed(11)
        more = {"do_sample": True, "temperature": 1.0} if temperature else {"do_sample": False}
        codes = theirs.generate(torch.tensor([[*prompt.input_ids, boi]]), attention_mask=torch.ones(1, len(prompt) + 1),
                                generation_mode="image", guidance_scale=5.0, **more)  # fmt: skip
        how = Drawing(guidance=5.0, away="pads", temperature=temperature)
        making = Making(draw=True, drawing=how, seed=11)
        said = ours.engine.generate([prompt], max_tokens=18, making=making)[0]
        assert [i - ours.network.config.backbone.vocab_size for i in said[1:-1]] == codes[0].tolist()
        values = theirs.decode_image_tokens(codes)
        expected = ((values[0] + 1) * 127.5).round().clamp(0, 255).int().numpy()
        answer = ours.answer([{"role": "user", "content": "a cat"}], max_tokens=18, making=making)
        record("janus-draws", "codes", "guidance")
        record("janus-draws", "pictures", ours=drawn(answer), theirs=torch.tensor(expected))
        seen.add(tuple(said))
    assert len(seen) == 2


@torch.no_grad()
def test_chameleon_draws_by_three_prompts(whole: Whole, record: Callable[..., None]) -> None:
    """Against the reference's own layers: text and pictures, pictures alone, and nothing, as its authors' code adds them up; greedily and
    by chance with one seed."""
    if whole.name != "chameleon":
        pytest.skip("Chameleon's")
    ours, theirs = whole.ours, whole.theirs
    content = [{"type": "image", "image": picture((20, 16))}, {"type": "text", "text": "more"}]
    prompt = ours.processor.encode(talk([(20, 16), "more"]), answer_next=True)
    frames = ours.processor.frames
    assert frames is not None
    read = ours.network.read(collate([[prompt]], 0)).input_ids_BT[0].tolist()
    boi, eoi = (ours.tokenizer.special_id(token) for token in ("<racm3:break>", "<eoss>"))
    streams = [[*read, boi], [*(i for i in read if i in (1, boi, eoi, *frames.words)), boi], [1, boi]]
    seen: set[tuple[int, ...]] = set()
    for temperature in (0.0, 1.0):
        codes: list[int] = []
        chance = Chance(frames.words, temperature)
        for _ in range(frames.grid.tokens):
            full, pictures_alone, nothing = (
                theirs.lm_head(theirs.model(torch.tensor([[*one, *codes]])).last_hidden_state[0, -1]) for one in streams
            )
            scores_V = nothing + 1.2 * (pictures_alone - nothing) + 3.0 * (full - pictures_alone)
            codes.append(frames.words[int(chance(torch.empty(0), scores_V[None])[0, frames.words].argmax())])
        how = Drawing(guidance=3.0, picture_guidance=1.2, away="pictures", temperature=temperature)
        making = Making(draw=True, drawing=how, seed=SEED)
        said = ours.engine.generate([prompt], max_tokens=18, making=making)[0]
        assert said == [boi, *codes, eoi]
        record("chameleon-draws", "guidance")
        seen.add(tuple(said))
        (missing,) = ours.answer([{"role": "user", "content": content}], max_tokens=18, making=making).content
        assert "no decoder" in missing.value["error"]
    assert len(seen) == 2
