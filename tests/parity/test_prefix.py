"""Prefix tuning is peft's, and keeps what every model promises: packing, padding, caches and saving change nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from sensorium.api import Model, load
from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.backbones.prefix import FAMILIES
from sensorium.cli.main import app
from sensorium.core.errors import ConfigError, SensoriumError, WeightsError
from sensorium.core.sample import parse_sample
from sensorium.interop.adapter_export import export_adapter
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.hf import export_hf
from sensorium.interop.merged import merge
from sensorium.interop.saved import save_model
from sensorium.interop.start import start_from
from sensorium.model.config import ModelConfig, PrefixConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.recipes import RECIPES
from sensorium.recipes.sizes import adapter_size
from sensorium.recipes.tiny import tiny_model
from sensorium.training.run import plan_recipe
from sensorium.training.trainer import TrainerOptions

LENGTH = 4
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 90, "max_position_embeddings": 64}
GROUPED = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2}
LLMS: dict[str, dict[str, Any]] = {
    "llama": GROUPED, "mistral": GROUPED | {"sliding_window": None}, "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 12}, "opt": SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "vocab_size": 90, "n_positions": 64},
    "gpt_neox": SMALL | {"intermediate_size": 48},
}  # fmt: skip
IDS = torch.randint(3, 90, (2, 11), generator=torch.Generator().manual_seed(0))


def language_model(family: str) -> CausalLM:
    torch.manual_seed(0)
    lm = CausalLMConfig(arch={"model_type": family, **LLMS[family]}).build().eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.normal_(0, 0.2)
    return lm


def logits(lm: CausalLM, ids: Tensor = IDS) -> Tensor:
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    return lm.logits(lm(lm.embed(ids), positions_BT=positions))


@pytest.mark.parametrize("hidden", [None, 20])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_pefts(family: str, hidden: int | None) -> None:
    ours = language_model(family)
    plain = logits(ours)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH,  # pyright: ignore
                                     prefix_projection=hidden is not None, encoder_hidden_size=hidden)  # fmt: skip
    theirs: Any = peft.get_peft_model(copy.deepcopy(ours.lm), config).eval()
    ours.add_prefix(LENGTH, hidden)
    encoder = theirs.prompt_encoder["default"]
    assert ours.prefix_tuning is not None
    ours.prefix_tuning.load_state_dict(encoder.state_dict())
    mine, expected = logits(ours), theirs(input_ids=IDS).logits
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
    assert (mine - plain).abs().max() > 0.05
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (mine * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(ours.prefix_tuning.parameters(), encoder.parameters(), strict=True):
        assert a.grad is not None
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_is_pefts(family: str) -> None:
    ours = language_model(family)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)  # pyright: ignore
    theirs: Any = peft.get_peft_model(copy.deepcopy(ours.lm), config).eval()
    ours.add_prefix(LENGTH, None)
    assert ours.prefix_tuning is not None
    ours.prefix_tuning.load_state_dict(theirs.prompt_encoder["default"].state_dict())
    cache, ids = ours.new_cache(), IDS[:1]
    with torch.no_grad():
        hidden = ours(ours.embed(ids), positions_BT=torch.arange(11)[None], cache=cache)
        written: list[int] = []
        for step in range(8):
            written.append(int(ours.logits(hidden[:, -1]).argmax()))
            token = torch.tensor([written[-1:]])
            hidden = ours(ours.embed(token), positions_BT=torch.tensor([[11 + step]]), cache=cache)
        # Whole rows, without a cache of their own making.
        whole = torch.cat([ids, torch.tensor([written])], dim=1)
        expected = theirs(input_ids=whole).logits[0, 10:-1].argmax(-1).tolist()
    assert written == expected


def model_of(llm: str, hidden: int | None = None) -> Model:
    config = tiny_model().model_copy(update={"adapter": PrefixConfig(length=LENGTH, hidden=hidden)})
    if llm != "llama":
        arch = LLMS[llm] | {"model_type": llm, "vocab_size": 512, "max_position_embeddings": 512, "n_positions": 512,
                            "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}  # fmt: skip
        config = config.model_copy(update={"backbone": CausalLMConfig(arch=arch, tokenizer="bytes")})
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return Model(model, tokenizer)


def samples(model: Model) -> list[Any]:
    texts = ("so?", "what is it, then?", "a longer question about nothing at all", "no")
    return [model.processor.encode(parse_sample({"messages": [
        {"role": "user", "content": text}, {"role": "assistant", "content": f"answer {i}"}]}))
        for i, text in enumerate(texts)]  # fmt: skip


@pytest.mark.parametrize("llm", ["llama", "opt", "gpt2", "qwen3"])
@torch.no_grad()
def test_packing_and_padding_change_nothing(llm: str) -> None:
    model = model_of(llm)
    examples = samples(model)
    alone = [model.network(collate([[e]], 0)).hidden_BTD[0] for e in examples]
    packed = model.network(collate([examples[:3], examples[3:]], 0)).hidden_BTD
    left = model.network(collate([[e] for e in examples], 0, pad_left=True)).hidden_BTD
    right = model.network(collate([[e] for e in examples], 0)).hidden_BTD
    start = 0
    for i, (example, expected) in enumerate(zip(examples, alone, strict=True)):
        torch.testing.assert_close(right[i, : len(example)], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(left[i, -len(example) :], expected, atol=1e-5, rtol=1e-4)
        row, start = (0, start) if i < 3 else (1, 0)
        torch.testing.assert_close(packed[row, start : start + len(example)], expected, atol=1e-5, rtol=1e-4)
        start += len(example)


@pytest.mark.parametrize("llm", ["llama", "gpt2"])
def test_answers_in_batches_with_caches_are_those_of_whole_rows(llm: str) -> None:
    model = model_of(llm)
    model.processor.stop_ids.clear()
    prompts = [model.processor.prompt(parse_sample({"messages": [{"role": "user", "content": t}]}).messages)
               for t in ("so?", "a longer one, about pictures")]  # fmt: skip
    batched = model.engine.generate(prompts, max_tokens=8)
    for prompt, got in zip(prompts, batched, strict=True):
        assert model.engine.generate([prompt], max_tokens=8)[0] == got
        grown = copy.deepcopy(prompt)
        for token in got:
            with torch.no_grad():
                hidden = model.network(collate([[grown]], 0)).hidden_BTD
            assert int(model.network.logits(hidden[0, -1]).argmax()) == token
            grown.input_ids.append(token)
            grown.learn.append(False)
            grown.media_index.append(grown.media_index[-1])


@pytest.mark.parametrize("hidden", [None, 16])
def test_saved_loaded_exported_and_back(hidden: int | None, tmp_path: Path) -> None:
    model = model_of("llama", hidden)
    save_model(model.network, model.processor.tokenizer, tmp_path / "m", learnt=set())
    batch = collate([[e] for e in samples(model)], 0)
    with torch.no_grad():
        expected = model.network(batch).hidden_BTD
        assert torch.equal(load(tmp_path / "m").network(batch).hidden_BTD, expected)
    fresh = MultimodalModel(model.network.config).eval()
    assert start_from(fresh, tmp_path / "m").new == []
    with torch.no_grad():
        assert torch.equal(fresh(batch).hidden_BTD, expected)
    # peft reads what goes out, and it comes back the same.
    export_adapter(tmp_path / "m", tmp_path / "a")
    backbone: Any = model.network.backbone
    foreign = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.lm), str(tmp_path / "a")).eval()
    with torch.no_grad():
        torch.testing.assert_close(foreign(input_ids=IDS).logits, logits(backbone), atol=1e-5, rtol=1e-5)
    plain = MultimodalModel(model.network.config.model_copy(update={"adapter": None}))
    plain.load_state_dict({k: v for k, v in model.network.state_dict().items() if "prefix_tuning" not in k})
    save_model(plain, model.processor.tokenizer, tmp_path / "plain", learnt=set())
    words = ["import", str(tmp_path / "a"), str(tmp_path / "back"), "--onto", str(tmp_path / "plain"), "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["adapters"] == ["backbone"]
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "back").network(batch).hidden_BTD, expected, atol=1e-6, rtol=1e-6)


def test_what_has_no_place_for_it_says_so(tmp_path: Path) -> None:
    model = model_of("llama")
    save_model(model.network, model.processor.tokenizer, tmp_path / "m", learnt=set())
    refusals: list[tuple[type[SensoriumError], str, Any]] = [
        (ConfigError, "a prefix is keys and values", lambda: merge(tmp_path / "m", tmp_path / "x")),
        (ConfigError, "a model with a prefix", lambda: export_hf(tmp_path / "m", tmp_path / "x", "llava")),
        (WeightsError, "prefix has no place", lambda: start_from(build_pretrained(tiny_model())[0], tmp_path / "m")),
        (ConfigError, "a prefix for a language model of type 'gemma'",
         lambda: CausalLMConfig(arch=GROUPED | {"model_type": "gemma", "head_dim": 8}).build().add_prefix(2, None)),
        (ConfigError, "layers of type sliding_attention",
         lambda: CausalLMConfig(arch=GROUPED | {"model_type": "mistral", "sliding_window": 4}).build().add_prefix(2, None)),
    ]  # fmt: skip
    for kind, text, go in refusals:
        with pytest.raises(kind, match=text):
            go()
    assert not (tmp_path / "x").exists()


def test_it_takes_places_of_the_row_and_is_counted() -> None:
    config: ModelConfig = tiny_model().model_copy(update={"adapter": PrefixConfig(length=6)})
    assert config.longest_row == config.backbone.max_positions - 6
    # Two layers, keys and values of two heads of width 12.
    assert adapter_size(config) == 6 * 2 * 2 * 2 * 12
    assert json.loads(json.dumps(config.to_dict()))["adapter"]["kind"] == "prefix"


def test_rows_that_leave_no_place_for_it_are_refused_before_step_one(tmp_path: Path) -> None:
    recipe = RECIPES.find("tiny")().override(["model.adapter={kind: prefix, length: 6}"])
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match=r"max_length 512; expected at most 506, the LLM's positions without the prefix's"):
        plan_recipe(recipe, lambda: build_pretrained(recipe.model), options)
