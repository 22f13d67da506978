"""Qwen-VL against what its own code computes (`golden/make_qwen_vl.py` says how that was written down)."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.batch import Example, MediaBatch
from sensorium.core.errors import ConfigError
from sensorium.core.sample import parse_sample
from sensorium.encoders.qwen_vit import QwenVitConfig
from sensorium.inference.engine import Engine
from sensorium.inference.sampling import Sampling
from sensorium.interop.families.qwen_vl import QwenVl
from sensorium.interop.hf import read_hf, write_hf
from sensorium.media.image import load_image
from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.text.byte_tokenizer import byte_tokenizer

GOLDEN = Path(__file__).parent / "golden"
# Of the prompts of the golden file, in order.
SHOWS = (("start", "1"), ("middle", "1"), ("end", "1"), ("2",), ())
TABLE = "transformer.visual.attn_pool.pos_embed"


def _maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_qwen_vl", GOLDEN / "make_qwen_vl.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_qwen_vl"] = module
    spec.loader.exec_module(module)
    return module


MAKE = _maker()


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(gzip.decompress((GOLDEN / "qwen_vl.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def folder(golden: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the golden file's weights."""
    folder = tmp_path_factory.mktemp("qwen_vl")
    config = golden["config"]
    fresh = MultimodalModel(QwenVl().to_ours(config))
    table = fresh.state_dict()["projectors.image.table_QD"]
    save_file(MAKE.weights(golden["shapes"]) | {TABLE: table}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> MultimodalModel:
    return read_hf(folder)


def picture(config: ModelConfig, name: str) -> torch.Tensor:
    lane = config.lane("image")
    image, preprocess = load_image(MAKE.picture(name)), lane.encoder.preprocess()
    plan = lane.resolution.plan(image.shape, preprocess.size_px, lane.tile_grid(), 1)
    return torch.from_numpy(lane.resolution.cut(image, plan, preprocess)).permute(0, 3, 1, 2)


def example(config: ModelConfig, prompt: list[int | str]) -> Example:
    """A prompt of the golden file; what its slots hold is of no account."""
    lane = config.lane("image")
    ids, slots, media = list[int](), list[int](), list[MediaBatch]()
    for part in prompt:
        if isinstance(part, int):
            ids.append(part)
            continue
        slots += range(len(ids) + 1, len(ids) + 1 + MAKE.SLOTS)
        ids += [MAKE.START, *[0] * MAKE.SLOTS, MAKE.END]
        pixels_NCHW = picture(config, part)
        plan = lane.resolution.plan(load_image(MAKE.picture(part)).shape, 80, lane.tile_grid(), 1)
        media.append(MediaBatch(pixels_NCHW, (plan,)))
    joined: dict[str, MediaBatch] = {}
    if media:
        joined["image"] = MediaBatch(
            torch.cat([m.pixels_NCHW for m in media]), tuple(p for m in media for p in m.plans)
        )
    kept = {"image": slots} if slots else {}
    return Example(ids, [False] * len(ids), kept, joined, [0] * len(ids))


def logits(model: MultimodalModel, rows: list[list[Example]], **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(collate(rows, pad_id=0, **options)).hidden_BTD)[..., ::29]


def test_what_the_llm_reads(golden: dict[str, Any], model: MultimodalModel, record: Callable[..., None]) -> None:
    """Pixels, tower and adapter, of pictures wider and higher than a square."""
    pixels_NCHW = torch.cat([picture(model.config, name) for name in MAKE.SHAPES])
    with torch.no_grad():
        seen = model.projectors["image"](model.encoders["image"](pixels_NCHW))
    record("qwen-vl", "pixels", ours=seen.values_ND[:, ::17], theirs=torch.tensor(golden["features"]))


@pytest.mark.parametrize("how", ["alone", "left", "right", "packed"])
def test_logits(how: str, golden: dict[str, Any], model: MultimodalModel, record: Callable[..., None]) -> None:
    cases = golden["cases"]
    examples = [example(model.config, case["prompt"]) for case in cases]
    if how == "packed":
        got = list(logits(model, [examples])[0].split([len(e) for e in examples]))
    elif how == "alone":
        got = [logits(model, [[e]])[0] for e in examples]
    else:
        left = how == "left"
        rows = logits(model, [[e] for e in examples], pad_left=left)
        got = [row[-len(e) :] if left else row[: len(e)] for row, e in zip(rows, examples, strict=True)]
    for one, case, shown in zip(got, cases, SHOWS, strict=True):
        aspects = shown if how == "alone" else (how,)
        record("qwen-vl", *aspects, ours=one, theirs=torch.tensor(case["logits"]))


def test_greedy_answers(golden: dict[str, Any], model: MultimodalModel, record: Callable[..., None]) -> None:
    engine = Engine(model, Processor(model.config, byte_tokenizer()))
    engine.processor.stop_ids = set()
    cases = golden["cases"]
    examples = [example(model.config, case["prompt"]) for case in cases]
    assert engine.generate(examples, max_tokens=8) == [case["answer"] for case in cases]
    record("qwen-vl", "greedy")


@pytest.fixture(scope="module")
def short(golden: dict[str, Any], folder: Path, tmp_path_factory: pytest.TempPathFactory) -> MultimodalModel:
    """The same weights in a model to which 16 tokens are the longest row of its training."""
    place = tmp_path_factory.mktemp("short")
    (place / "config.json").write_text(json.dumps(golden["config"] | MAKE.LONG), encoding="utf-8")
    (place / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return read_hf(place)


@pytest.mark.parametrize("how", ["alone", "left", "right", "packed"])
def test_prompts_beyond_what_was_trained(how: str, golden: dict[str, Any], short: MultimodalModel) -> None:
    cases = golden["long"]
    examples = [example(short.config, MAKE.long_prompt(case["tokens"])) for case in cases]
    if how == "packed":
        got = list(logits(short, [examples])[0].split([len(e) for e in examples]))
    elif how == "alone":
        got = [logits(short, [[e]])[0] for e in examples]
    else:
        rows = logits(short, [[e] for e in examples], pad_left=how == "left")
        got = [row[-len(e) :] if how == "left" else row[: len(e)] for row, e in zip(rows, examples, strict=True)]
    for one, case in zip(got, cases, strict=True):
        torch.testing.assert_close(one, torch.tensor(case["logits"]), atol=1e-5, rtol=1e-4)


def test_long_prompts_are_answered_alike(golden: dict[str, Any], short: MultimodalModel) -> None:
    """From a cache, one by one and together, and by a search: what is written keeps the base of its prompt."""
    engine = Engine(short, Processor(short.config, byte_tokenizer()))
    engine.processor.stop_ids = set()
    cases = golden["long"]
    examples = [example(short.config, MAKE.long_prompt(case["tokens"])) for case in cases]
    assert engine.generate(examples, max_tokens=3) == [case["answer"] for case in cases]
    assert [engine.generate([one], max_tokens=3)[0] for one in examples] == [case["answer"] for case in cases]
    searched = engine.generate(examples[1:3], max_tokens=3, sampling=Sampling(beams=3))
    assert searched == [engine.generate([one], max_tokens=3, sampling=Sampling(beams=3))[0] for one in examples[1:3]]


def test_short_rows_and_learning_are_not_touched(golden: dict[str, Any], model: MultimodalModel, short: MultimodalModel) -> None:
    plain, one = golden["long"][0], example(short.config, MAKE.long_prompt(golden["long"][0]["tokens"]))
    torch.testing.assert_close(logits(short, [[one]])[0], torch.tensor(plain["logits"]), atol=1e-5, rtol=1e-4)
    long = example(short.config, MAKE.long_prompt(70))
    stretched = logits(short, [[long]])
    short.backbone.train()
    try:
        assert torch.equal(logits(short, [[long]]), logits(model, [[long]]))
        assert not torch.allclose(logits(short, [[long]]), stretched, atol=1e-3)
    finally:
        short.backbone.eval()
    layers: Any = short.backbone.decoder_layers()  # pyright: ignore[reportCallIssue]
    assert not any(layer.self_attn.q_proj._forward_hooks for layer in layers)


def test_a_checkpoint_says_whether_it_stretches(golden: dict[str, Any]) -> None:
    config = golden["config"]
    assert getattr(QwenVl().to_ours(config).backbone, "stretched_beyond") == 2048  # noqa: B009
    off = config | {"use_dynamic_ntk": False, "use_logn_attn": False}
    ours = QwenVl().to_ours(off)
    assert getattr(ours.backbone, "stretched_beyond") is None  # noqa: B009
    assert QwenVl().to_ours(QwenVl().to_theirs(ours)) == ours
    with pytest.raises(ConfigError, match="both, or neither"):
        QwenVl().to_ours(config | {"use_logn_attn": False})
    with pytest.raises(ConfigError, match="expected qwen2"):
        CausalLMConfig.from_dict({**CausalLMConfig.tiny().to_dict(), "stretched_beyond": 16}).build()


def test_the_way_back(
    golden: dict[str, Any], folder: Path, model: MultimodalModel, tmp_path: Path, record: Callable[..., None]
) -> None:
    """The same tensors bit for bit, and a config that means the same."""
    config = QwenVl().to_theirs(model.config)
    assert QwenVl().to_ours(config) == model.config
    write_hf(model, config, QwenVl(), tmp_path)
    one, two = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(one) == set(two) == set(golden["shapes"]) | {TABLE}
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    record("qwen-vl", "export")


def test_published_config_goes_there_and_back() -> None:
    """The figures of Qwen/Qwen-VL-Chat's config.json."""
    visual = {"heads": 16, "image_size": 448, "image_start_id": 151857, "layers": 48, "mlp_ratio": 4.9231,
              "output_dim": 4096, "patch_size": 14, "width": 1664}  # fmt: skip
    config = {"model_type": "qwen", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016,
              "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 8192,
              "visual": visual}  # fmt: skip
    ours = QwenVl().to_ours(config)
    assert ours.lane("image").encoder == QwenVitConfig()
    assert ours.lane("image").tile_grid().tokens == 256
    assert QwenVl().to_ours(QwenVl().to_theirs(ours)) == ours
    with pytest.raises(ConfigError, match="visual"):
        QwenVl().to_ours(config | {"visual": None})


def test_a_tower_from_clip(tmp_path: Path) -> None:
    """bigG in transformers' layout gives its blocks; the CLS token and its position stay behind."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = QwenVitConfig.tiny().model_copy(update={"image_size_px": 24, "select_layer": 0})
    arch = CLIPVisionConfig(**config.hf_shape(), hidden_act="gelu", layer_norm_eps=1e-6)
    theirs = CLIPVisionModel(arch).eval()
    theirs.save_pretrained(tmp_path)
    ours: Any = config.build(tmp_path)
    raw = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    with torch.no_grad():
        # What enters the first block has met no CLS token yet.
        expected = theirs(ours.normalise(raw), output_hidden_states=True).hidden_states[0][:, 1:]
        torch.testing.assert_close(ours(raw).values_ND, expected.flatten(0, 1))
    layers = dict(theirs.named_parameters())
    for name, value in ours.tower.encoder.named_parameters():
        (match,) = [v for k, v in layers.items() if k.endswith(f"encoder.{name}")]
        assert torch.equal(value, match)


def test_the_prompt_is_the_originals(record: Callable[..., None]) -> None:
    """Two numbered pictures, marks that are single tokens, 256 slots between them."""
    config = QwenVl().to_ours(MAKE.CONFIG)
    tokenizer = byte_tokenizer()
    image = {"type": "image", "image": MAKE.picture("A")}
    sample = parse_sample({"messages": [
        {"role": "user", "content": [image, image, {"type": "text", "text": "Same?"}]},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": [image, {"type": "text", "text": "And <img>?"}]},
        {"role": "assistant", "content": "No."},
    ]})  # fmt: skip
    made = Processor(config, tokenizer).encode(sample)
    slots = set(made.slots["image"])
    ids = [i for place, i in enumerate(made.input_ids) if place not in slots]
    assert tokenizer.decode(ids, keep_special=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nPicture 1: <img></img>\nPicture 2: <img></img>\nSame?<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n"
        "<|im_start|>user\nPicture 3: <img></img>\nAnd <img>?<|im_end|>\n"
        "<|im_start|>assistant\nNo.<|im_end|>\n"
    )
    assert len(slots) == 3 * 16
    marks = [tokenizer.special_id("<img>"), tokenizer.special_id("</img>")]
    # The mark in the last question is plain text.
    assert [ids.count(mark) for mark in marks] == [3, 3]
    record("qwen-vl", "ids", "placeholders")
