"""Encoder-decoders equal transformers: T5 alone, behind BLIP-2 and behind InstructBLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hf_models import IMAGE_ID, T5, blip2_t5, t5
from PIL import Image
from test_hf_families import normalised, our_greedy, pixels, round_trip

from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.core.batch import Batch, Example, MediaBatch, TilePlan
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import Sample, parse_sample
from sensorium.data.loader import Loader
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.hf import read_hf
from sensorium.interop.saved import load_model, save_model
from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.answers import encode_rows
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.training.log import read_log
from sensorium.training.preflight import loader_options, prepare_stage
from sensorium.training.run import plan_recipe, train_recipe
from sensorium.training.trainer import TrainerOptions

PICTURE = [IMAGE_ID] * 4
PROMPTS = ([5, 6, 7, 1], [9, 8, 7, 6, 5, 4, 1], [3, 1])
ANSWERS = ([11, 12, 13, 1], [21, 1], [31, 32, 33, 34, 35, 36, 1])


def example(prompt: list[int], answer: list[int], raw: torch.Tensor | None = None, text: tuple[int, ...] | None = None) -> Example:
    ids = [*prompt, *answer]
    media = {}
    if raw is not None:
        texts = (text,) if text is not None else ()
        media = {"image": MediaBatch(raw, (TilePlan(),) * len(raw), texts=texts)}
    slots = {"image": [i for i, token in enumerate(ids) if token == IMAGE_ID]} if media else {}
    return Example(ids, [False] * len(prompt) + [True] * len(answer), slots, media, [0] * len(ids))


def batch_of(*examples: Example, pad_left: bool = False) -> Batch:
    return collate([[e] for e in examples], pad_id=0, pad_left=pad_left)


@torch.no_grad()
@pytest.mark.parametrize("tie", [False, True])
def test_t5(tie: bool, tmp_path: Path) -> None:
    theirs = t5(tmp_path / "hf", tie=tie)
    config = Seq2SeqLMConfig(arch=T5 | {"tie_word_embeddings": tie})
    ours = MultimodalModel(ModelConfig(backbone=config, template="seq2seq"), {"backbone": tmp_path / "hf"}).eval()
    examples = [example(p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    hidden_BTD = ours(batch_of(*examples)).hidden_BTD
    for hidden_TD, prompt, answer in zip(hidden_BTD, PROMPTS, ANSWERS, strict=True):
        want = theirs(input_ids=torch.tensor([prompt]), labels=torch.tensor([answer])).logits[0]
        got = ours.logits(hidden_TD[len(prompt) - 1 :][: len(answer)])
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
        assert not hidden_TD[: len(prompt) - 1].any()
    texts = [theirs.generate(input_ids=torch.tensor([p]), max_new_tokens=9, min_new_tokens=9, do_sample=False,
                             eos_token_id=-1)[0, 1:].tolist() for p in PROMPTS]  # fmt: skip
    # Prompts of three lengths in one batch, padded on the left.
    assert our_greedy(ours, [example(p, []) for p in PROMPTS], 9) == texts


@torch.no_grad()
@pytest.mark.parametrize("reads", [False, True])
def test_in_front_of_t5(reads: bool, tmp_path: Path) -> None:
    theirs = blip2_t5(tmp_path / "hf", reads=reads)
    ours = read_hf(tmp_path / "hf")
    assert isinstance(ours.config.backbone, Seq2SeqLMConfig)
    question = (3, 4, 5) if reads else None
    asked = {"qformer_input_ids": torch.tensor([question]),
             "qformer_attention_mask": torch.ones(1, 3, dtype=torch.long)} if reads else {}  # fmt: skip
    for prompt in ([*PICTURE, 5, 6, 1], [5, *PICTURE, 6, 7, 1], [5, 6, *PICTURE]):
        raw, answer = pixels(1), [11, 12, 13, 1]
        given: dict[str, Any] = {
            "input_ids": torch.tensor([prompt]), "pixel_values": normalised(raw),
            "attention_mask": torch.ones(1, len(prompt), dtype=torch.long), **asked,
        }  # fmt: skip
        want = theirs(**given, labels=torch.tensor([answer])).logits[0]
        hidden_BTD = ours(batch_of(example(prompt, answer, raw, question))).hidden_BTD
        got = ours.logits(hidden_BTD[0, len(prompt) - 1 : -1])
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)
        text = theirs.generate(**given, max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=-1)
        assert our_greedy(ours, [example(prompt, [], raw, question)], 8) == [text[0].tolist()[-8:]]
    round_trip(ours, tmp_path / "hf", tmp_path / "back")


@torch.no_grad()
def test_padding_changes_nothing_and_several_samples_in_a_row_are_refused() -> None:
    ours = MultimodalModel(ModelConfig(backbone=Seq2SeqLMConfig.tiny(), template="seq2seq")).eval()
    examples = [example(p, a) for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    together_BTD = ours(batch_of(*examples)).hidden_BTD
    for row_TD, one in zip(together_BTD, examples, strict=True):
        alone_TD = ours(batch_of(one)).hidden_BTD[0]
        torch.testing.assert_close(row_TD[: len(one)], alone_TD, atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="several samples in a row"):
        ours(collate([examples], pad_id=0))
    two_turns = Example([5, 1, 11, 1, 6, 1, 12, 1], [False, False, True, True] * 2, {}, {}, [0] * 8)
    with pytest.raises(DataError, match="several answers"):
        ours(batch_of(two_turns))
    with pytest.raises(ConfigError, match="'bart'"):
        Seq2SeqLMConfig(arch={"model_type": "bart"}).build()


def tiny(*overrides: str) -> Any:
    backbone = Seq2SeqLMConfig.tiny().to_dict()
    recipe = RECIPES.find("tiny")().override(
        ["stages.align.pack=false", "stages.instruct.pack=false", "model.template=seq2seq", *overrides]
    )
    return recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"backbone": Seq2SeqLMConfig.from_dict(backbone)})}
    )


def test_it_trains_on_pictures_and_comes_back(tmp_path: Path) -> None:
    recipe = tiny("stages.align.steps=12", "stages.instruct.steps=2",
                  "stages.instruct.data=[{kind: scenes, task: captions, count: 64}]",
                  "stages.align.learns=[{part: backbone, lr: 0.003}, {part: projectors.image, lr: 0.003}]")  # fmt: skip
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    losses = [row["loss"] for row in read_log(tmp_path / "run" / "log.jsonl") if row["stage"] == "align"]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    model, tokenizer = load_model(tmp_path / "run" / "model")
    processor = Processor(model.config, tokenizer)
    sample = parse_sample({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]})
    made = processor.encode(sample)
    # One end of text behind the question and one behind the answer; only the latter is learned.
    assert [made.learn[i] for i, token in enumerate(made.input_ids) if token == byte_tokenizer().eos_id] == [False, True]


def talk(*answers: str, **more: Any) -> Sample:
    content = [{"type": "image", "image": Image.new("RGB", (32, 32))}, {"type": "text", "text": "q0"}]
    turns: list[Any] = [{"role": "user", "content": content}]
    for i, answer in enumerate(answers):
        turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": f"q{i + 1}"}]
    return parse_sample({"messages": turns[:-1], **more})


def rows(sample: Sample, max_length: int | None = None) -> list[tuple[str, str, int]]:
    """What each row reads, what it writes, and what was cut."""
    recipe = tiny()
    processor = Processor(recipe.model, byte_tokenizer())
    processor.splits_answers = True
    made = encode_rows(processor, sample, max_length=max_length)
    texts: list[tuple[str, str, int]] = []
    for example in made:
        begin = example.learn.index(True)
        assert all(example.learn[begin:])
        assert len(example.media["image"].plans) == 1
        picture = len(example.slots["image"])
        texts.append((processor.tokenizer.decode(example.input_ids[picture:begin]),
                      processor.tokenizer.decode(example.input_ids[begin:]), example.truncated_tokens))  # fmt: skip
    return texts


def test_every_answer_is_a_row_of_its_own() -> None:
    """Earlier turns are read; of separate turns, only the pair's own question."""
    assert rows(talk("one", "two")) == [("q0", "one", 0), ("q0oneq1", "two", 0)]
    assert rows(talk("one", "two", separate_turns=True)) == [("q0", "one", 0), ("q1", "two", 0)]
    # 17 of a picture, q0 and its end, "one" and its end, q1 and its end: the second answer begins at 27.
    assert rows(talk("one", "two"), 27) == [("q0", "one", 4)]
    assert rows(talk("one", "two"), 29) == [("q0", "one", 0), ("q0oneq1", "tw", 2)]


def test_conversations_train_an_encoder_decoder(tmp_path: Path) -> None:
    """A batch of so many Samples has a row for each answer, and the same loss for them as apart."""
    recipe = tiny("stages.align.steps=2", "stages.instruct.steps=2", "stages.instruct.batch_size=3")
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    lines = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["stage"] == "instruct"]
    assert [line["samples"] for line in lines] == [3, 3]
    stage = recipe.stages[1]
    model, tokenizer = build_pretrained(recipe.model)
    parts = prepare_stage(stage, model, Processor(recipe.model, tokenizer))
    loader = Loader(parts.sources, parts.order, parts.processor, loader_options(stage))
    stream = loader.batches(parts.order.start())
    loaded = next(stream)
    stream.close()  # pyright: ignore
    order = parts.order.start()
    answers = 0
    for _ in range(3):
        pick = parts.order.next(order)
        answers += sum(m.role == "assistant" for m in parts.sources[pick.source][pick.row].messages)
    assert len(loaded.batch.input_ids_BT) == answers > 3
    assert loaded.samples == 3
    assert loaded.state.counts == order.counts


def test_packed_stages_are_refused_before_step_one(tmp_path: Path) -> None:
    recipe = tiny("stages.align.pack=true")
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match=r"stages\.align\.pack: packed rows for an encoder-decoder.*pack: false, with a token_budget"):
        plan_recipe(recipe, lambda: build_pretrained(recipe.model), options)
