"""InstructBLIP from transformers' own folder: the Q-Former reads what is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_models import IMAGE_ID, instructblip
from PIL import Image
from test_hf_families import normalised, our_greedy, pixels, round_trip
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from sensorium.api import load
from sensorium.core.batch import Example, MediaBatch, TilePlan
from sensorium.core.errors import AlignmentError, ConfigError, DataError
from sensorium.core.sample import Sample, parse_sample
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.text.byte_tokenizer import byte_tokenizer

PICTURE = [IMAGE_ID] * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("instructblip") / "hf"


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    torch.manual_seed(3)
    return instructblip(folder)


@pytest.fixture(scope="module")
def ours(theirs: Any, folder: Path) -> MultimodalModel:
    return read_hf(folder)


def example(ids: list[int], raw: torch.Tensor, texts: tuple[tuple[int, ...], ...]) -> Example:
    slots = [i for i, token in enumerate(ids) if token == IMAGE_ID]
    media = MediaBatch(raw, (TilePlan(),) * len(raw), texts=texts)
    return Example(ids, [False] * len(ids), {"image": slots}, {"image": media}, [0] * len(ids))


def reference(theirs: Any, ids: list[int], raw: torch.Tensor, texts: tuple[tuple[int, ...], ...]) -> Any:
    """Their input: one text a picture, padded on the right to the longest."""
    longest = max(map(len, texts))
    padded = [[*text, *[0] * (longest - len(text))] for text in texts]
    seen = [[1] * len(text) + [0] * (longest - len(text)) for text in texts]
    return {
        "input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values": normalised(raw), "qformer_input_ids": torch.tensor(padded),
        "qformer_attention_mask": torch.tensor(seen),
    }  # fmt: skip


CASES = {
    "texts of several lengths": ([1, *PICTURE, 5, *PICTURE, 6, 7], ((3, 4), (9, 8, 7, 6, 5))),
    "side by side": ([*PICTURE, *PICTURE, 1, 5], ((3, 4, 6), (9, 8, 7))),
}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_logits_and_text(case: str, theirs: Any, ours: MultimodalModel) -> None:
    ids, texts = CASES[case]
    raw = pixels(len(texts))
    given = reference(theirs, ids, raw, texts)
    got = ours.logits(ours(collate([[example(ids, raw, texts)]], pad_id=0)).hidden_BTD)
    torch.testing.assert_close(got, theirs(**given).logits, atol=1e-5, rtol=1e-4)
    text = theirs.generate(**given, max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=-1)
    assert our_greedy(ours, [example(ids, raw, texts)], 8) == [text[0].tolist()[-8:]]


@torch.no_grad()
def test_the_question_changes_what_is_seen(ours: MultimodalModel) -> None:
    raw = pixels(1)
    one, two = (ours.features({"image": MediaBatch(raw, (TilePlan(),), texts=(text,))})["image"]
                for text in ((3, 4, 5), (3, 4, 6)))  # fmt: skip
    assert not torch.allclose(one.values_ND, two.values_ND, atol=1e-3)


def test_returns_as_it_came(theirs: Any, ours: MultimodalModel, folder: Path, tmp_path: Path) -> None:
    round_trip(ours, folder, tmp_path / "back")


def reader(folder: Path) -> None:
    """A tokenizer of words in the place where transformers keeps the Q-Former's."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["what", "is", "this", "that", "here", "now", "not"]]
    rust = RustTokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    rust.pre_tokenizer = Whitespace()
    rust.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    (folder / "qformer_tokenizer").mkdir()
    rust.save(str(folder / "qformer_tokenizer" / "tokenizer.json"))
    (folder / "qformer_tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')


def asked(words: str, **more: Any) -> Sample:
    content = [{"type": "image", "image": Image.new("RGB", (28, 28))}, {"type": "text", "text": words}]
    return parse_sample({"messages": [{"role": "user", "content": content}], **more})


def test_the_reader_comes_along(tmp_path: Path) -> None:
    """Imported with the model, used by the Processor, written back on export."""
    from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

    torch.manual_seed(0)
    config = instructblip(tmp_path / "first").config
    # Room for the 260 bytes of the tokenizer that stands in for the LLM's.
    values = config.to_dict() | {"image_token_index": 299}
    values["text_config"]["vocab_size"] = 300
    hf = tmp_path / "hf"
    InstructBlipForConditionalGeneration(InstructBlipConfig(**values)).save_pretrained(hf)
    byte_tokenizer().save(hf)
    reader(hf)
    import_hf(hf, tmp_path / "ours")
    model = load(tmp_path / "ours", "cpu")
    encoded = model.processor.encode(asked("what is this ?"), answer_next=True)
    assert encoded.media["image"].texts == ((2, 4, 5, 6, 1, 3),)
    assert model.respond(asked("what is this").messages, max_tokens=3) is not None
    with pytest.raises(DataError, match="16, as many as the projector reads"):
        model.processor.encode(asked("what " * 20), answer_next=True)
    export_hf(tmp_path / "ours", tmp_path / "back")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        before, after = (json.loads((root / "qformer_tokenizer" / name).read_text()) for root in (hf, tmp_path / "back"))
        assert before == after
    assert same_tensors(hf, tmp_path / "back")


def test_a_picture_without_a_text_is_named(ours: MultimodalModel) -> None:
    with pytest.raises(AlignmentError, match="0 texts for 1 pictures"):
        ours.projectors["image"](ours.encoders["image"](pixels(1)))


def test_separate_turns_and_small_vocabularies_are_refused(ours: MultimodalModel) -> None:
    from sensorium.processing.processor import Processor

    processor = Processor(ours.config, byte_tokenizer())
    with pytest.raises(ConfigError, match=r"words for a projector of 50"):
        processor.encode(asked("what"), answer_next=True)
    with pytest.raises(DataError, match="share a picture's tokens"):
        processor.encode(asked("what", separate_turns=True), answer_next=True)


def words_tokenizer(folder: Path, names: list[str], begin: str, end: str) -> Any:
    """A tokenizer of words that puts its marks around a text, as transformers holds it."""
    from transformers import PreTrainedTokenizerFast

    rust = RustTokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    rust.pre_tokenizer = Whitespace()
    marks = [(mark, names.index(mark)) for mark in (begin, end) if mark]
    rust.post_processor = TemplateProcessing(single=f"{begin} $A {end}".strip(), special_tokens=marks)
    theirs = PreTrainedTokenizerFast(tokenizer_object=rust, pad_token="[PAD]", bos_token=begin or None,
                                     eos_token=end or "[PAD]", unk_token="[UNK]")  # fmt: skip
    theirs.save_pretrained(folder)
    return theirs


WORDS = ["what", "is", "this", "that", "here", "now"]


@pytest.mark.parametrize("size", [(40, 20), (17, 90), (28, 28), (300, 7)])
@pytest.mark.parametrize("kind", ["vicuna", "t5"])
def test_processing(
    kind: str, size: tuple[int, int], ours: MultimodalModel, tmp_path: Path, record: Callable[..., None]
) -> None:
    """Pixels, ids for both readers, places of the picture: in front of everything, the begin of
    text behind it."""
    from transformers import InstructBlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    from sensorium.processing.processor import Processor
    from sensorium.text.reader import Reader
    from sensorium.text.tokenizer import Tokenizer

    begin, end = ("<s>", "") if kind == "vicuna" else ("", "</s>")
    llm = words_tokenizer(tmp_path / "llm", ["[PAD]", "[UNK]", "<s>", "</s>", *WORDS], begin, end)
    former = words_tokenizer(tmp_path / "former", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *reversed(WORDS)], "[CLS]", "[SEP]")
    if kind == "vicuna":
        llm.eos_token = "</s>"
        llm.save_pretrained(tmp_path / "llm")
    tokenizer = Tokenizer.load(tmp_path / "llm")
    tokenizer.reader = Reader.load(tmp_path / "former")
    template = "seq2seq" if kind == "t5" else ours.config.template
    processor = Processor(ours.config, tokenizer, template=template)
    picture = Image.effect_noise(size, 90).convert("RGB")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "what is this here"}]
    made = processor.encode(parse_sample({"messages": [{"role": "user", "content": content}]}), answer_next=True)
    images = BlipImageProcessorPil(size={"height": 28, "width": 28})
    given = InstructBlipProcessor(images, llm, former, num_query_tokens=4)(images=picture, text="what is this here")
    image_id = llm.convert_tokens_to_ids("<image>")
    ids = given["input_ids"][0]
    places = [i for i, token in enumerate(ids) if token == image_id]
    assert list(made.slots["image"]) == places == [0, 1, 2, 3]
    assert made.input_ids[4:] == ids[4:]
    assert made.media["image"].texts == (tuple(given["qformer_input_ids"][0]),)
    theirs_NCHW = torch.as_tensor(given["pixel_values"])
    ours_NCHW = normalised(made.media["image"].pixels_NCHW)
    record(f"instructblip-{kind}", "pixels", "ids", "placeholders", ours=ours_NCHW, theirs=theirs_NCHW)
