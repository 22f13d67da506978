"""Adaption prompts against peft's, and that they keep what every model promises."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sensorium.api import Model, load
from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.backbones.llama_steps import can_step
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.sample import Sample, parse_sample
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.hf import export_hf
from sensorium.interop.saved import load_model, save_model
from sensorium.interop.start import start_from
from sensorium.model.adapter import inject_adapter
from sensorium.model.config import AdaptionPromptConfig, LoraConfig, ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.recipes import RECIPES
from sensorium.recipes.sizes import adapter_size, part_sizes
from sensorium.recipes.tiny import tiny_model
from sensorium.training.config import Recipe
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

LENGTH, LAYERS = 5, 2
TINY = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 64}  # fmt: skip
LMS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 4},
    "llama-grouped": {"model_type": "llama", "num_key_value_heads": 2},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 4},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
}
PROMPTS = {"kind": "adaption_prompt", "layers": 2, "length": 4}


def language_model(name: str) -> CausalLM:
    """Random, with weights wide enough to tell one answer from another."""
    lm = CausalLMConfig(arch=TINY | LMS[name]).build().eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.normal_(0, 0.2)
    return lm


def prompts(module: torch.nn.Module) -> list[tuple[Tensor, Tensor]]:
    """(vectors, gate) of each of our prompts, in layer order."""
    found = dict(module.named_parameters())
    return [(value, found[name.replace(".vectors", ".gate")])
            for name, value in found.items() if name.endswith(".adaption_prompt.vectors")]  # fmt: skip


def with_peft(lm: CausalLM, name: str) -> Any:
    """The same language model with peft's prompts, their gates open."""
    import peft
    from peft.tuners.adaption_prompt.layer import AdaptedAttention

    theirs: Any = copy.deepcopy(lm.lm)
    if name == "qwen2":
        # peft's table of types lacks it; its layer computes this attention all the same.
        for layer in theirs.model.layers[-LAYERS:]:
            layer.self_attn = AdaptedAttention("llama", LENGTH, layer.self_attn)
    else:
        peft.get_peft_model(theirs, peft.AdaptionPromptConfig(
            adapter_len=LENGTH, adapter_layers=LAYERS, task_type="CAUSAL_LM"))  # fmt: skip
    for layer in theirs.model.layers[-LAYERS:]:
        torch.nn.init.uniform_(layer.self_attn.adaption_gate, 0.4, 0.9)
    return theirs


# peft asks transformers by a name that is going to change.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("gate", ["layer", "heads"])
@pytest.mark.parametrize("name", LMS)
def test_logits_and_gradients_equal_pefts(name: str, gate: Any) -> None:
    """A gate for each head is peft's where all heads of a layer agree."""
    ours = language_model(name)
    theirs = with_peft(ours, name)
    ours.add_prompts(LAYERS, LENGTH, gate)
    attentions = [layer.self_attn for layer in theirs.model.layers[-LAYERS:]]
    for (vectors, opening), attention in zip(prompts(ours), attentions, strict=True):
        vectors.data.copy_(attention.adaption_prompt[0])
        opened = attention.adaption_gate.data
        opening.data.copy_(opened.atanh() if gate == "heads" else opened)
    ids_BT = torch.randint(0, 90, (2, 9))
    positions_BT = torch.arange(9).expand(2, 9)
    ours_in, theirs_in = (ours.embed(ids_BT).detach().requires_grad_() for _ in range(2))
    got = ours.logits(ours(ours_in, positions_BT=positions_BT))
    expected = theirs(inputs_embeds=theirs_in, position_ids=positions_BT).logits
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    plain = language_model(name)
    plain.load_state_dict(ours.state_dict(), strict=False)
    shut = plain.logits(plain(ours_in, positions_BT=positions_BT))
    assert not torch.allclose(got, shut, atol=1e-2), "the prompts say nothing"
    weights = torch.randn_like(got) / got.numel()
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, atol=1e-5, rtol=1e-5)
    for (vectors, opening), attention in zip(prompts(ours), attentions, strict=True):
        torch.testing.assert_close(vectors.grad, attention.adaption_prompt.grad[0], atol=1e-5, rtol=1e-5)
        slope = attention.adaption_gate.grad
        if gate == "heads":
            # The heads' gradients, each through its tanh, make up that of peft's one number.
            slope = slope * (1 - attention.adaption_gate.data**2)
        assert opening.grad is not None
        torch.testing.assert_close(opening.grad.sum(), slope.sum(), atol=1e-5, rtol=1e-5)


def test_gates_of_heads_open_one_by_one() -> None:
    """With one gate open, the authors' formula (two softmaxes over one concatenated score
    tensor, alpaca_finetuning_v1/llama/model.py) for that head, and the plain one for the others."""
    lm = language_model("llama")
    attention: Any = lm.decoder_layers()[-1].self_attn  # pyright: ignore[reportAttributeAccessIssue]
    hidden_BTD, causal = torch.randn(1, 6, 32), torch.full((6, 6), float("-inf")).triu(1)
    rotary = lm.lm.model.rotary_emb(hidden_BTD, torch.arange(6)[None])
    lm.add_prompts(1, LENGTH, "heads")
    (vectors, gate), = prompts(lm)
    gate.data[2] = 0.7
    got = attention(hidden_states=hidden_BTD, position_embeddings=rotary, attention_mask=causal[None, None])[0]

    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    def heads(x: Tensor) -> Tensor:
        return x.view(1, -1, 4, 8).transpose(1, 2)

    q, k = apply_rotary_pos_emb(heads(attention.q_proj(hidden_BTD)), heads(attention.k_proj(hidden_BTD)), *rotary)
    k = torch.cat([heads(attention.k_proj(vectors)), k], dim=2)
    v = torch.cat([heads(attention.v_proj(vectors)), heads(attention.v_proj(hidden_BTD))], dim=2)
    scores = q @ k.transpose(2, 3) / 8**0.5
    opened = torch.tensor([0.0, 0.0, 0.7, 0.0]).tanh().view(1, 4, 1, 1)
    share = torch.cat([opened * scores[..., :LENGTH].softmax(-1), (scores[..., LENGTH:] + causal).softmax(-1)], -1)
    expected = attention.o_proj((share @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_before_training_the_model_is_the_plain_one(bias: bool) -> None:
    arch = TINY | LMS["llama"] | {"attention_bias": bias}
    plain = CausalLMConfig(arch=arch).build().eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, 0, 0.2)
    prompted = copy.deepcopy(plain)
    prompted.add_prompts(3, LENGTH, "layer")
    embeds_BTD, positions_BT = torch.randn(2, 7, 32), torch.arange(7).expand(2, 7)
    one, two = (lm(embeds_BTD, positions_BT=positions_BT) for lm in (plain, prompted))
    assert torch.equal(one, two)
    assert set(plain.state_dict()) < set(prompted.state_dict())


def config(**changes: Any) -> ModelConfig:
    return tiny_model().model_copy(update={"adapter": AdaptionPromptConfig.from_dict(PROMPTS | changes)})


def opened(model: MultimodalModel) -> MultimodalModel:
    """Weights wide enough that greedy text is telling, and gates open."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
            if name.endswith(".adaption_prompt.vectors"):
                parameter.normal_()
            if name.endswith(".adaption_prompt.gate"):
                parameter.fill_(0.8)
    return model


def make(**changes: Any) -> Model:
    network, tokenizer = build_pretrained(config(**changes))
    return Model(opened(network), tokenizer)


def samples() -> list[Sample]:
    return [
        parse_sample({"messages": [{"role": "user", "content": "so?" * (i + 1)},
                                   {"role": "assistant", "content": f"answer {i}"}]})
        for i in range(3)
    ]  # fmt: skip


@torch.no_grad()
def test_padded_and_packed_rows_equal_single_ones() -> None:
    model = make()
    examples = [model.processor.encode(s) for s in samples()]
    alone = [model.network(collate([[e]], 0)).hidden_BTD[0] for e in examples]
    packed = model.network(collate([examples], 0)).hidden_BTD[0]
    padded = model.network(collate([[e] for e in examples], 0)).hidden_BTD
    start = 0
    for i, (example, expected) in enumerate(zip(examples, alone, strict=True)):
        end = start + len(example)
        torch.testing.assert_close(padded[i, : len(example)], expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(packed[start:end], expected, atol=1e-5, rtol=1e-4)
        start = end


def test_generation_with_cache_batched_and_left_padded_equals_whole_passes() -> None:
    model = make()
    assert not can_step(model.network.backbone.lm), "the fused steps know no prompts"
    asked = [model.processor.prompt(s.messages[:1]) for s in samples()]
    model.processor.stop_ids.clear()
    batched = model.engine.generate(asked, max_tokens=8)
    plain, _ = build_pretrained(tiny_model())
    plain.load_state_dict(model.network.state_dict(), strict=False)
    unprompted = Model(plain, model.processor.tokenizer)
    unprompted.processor.stop_ids.clear()
    assert unprompted.engine.generate(asked, max_tokens=8) != batched
    for i, got in enumerate(batched):
        assert model.engine.generate([asked[i]], max_tokens=8)[0] == got
        slow: list[int] = []
        for _ in range(8):
            grown = model.processor.prompt(samples()[i].messages[:1])
            grown.input_ids += slow
            grown.learn += [False] * len(slow)
            grown.media_index += [grown.media_index[-1]] * len(slow)
            with torch.no_grad():
                hidden = model.network(collate([[grown]], 0)).hidden_BTD
                slow.append(int(model.network.logits(hidden[0, -1]).argmax()))
        assert slow == got


def test_save_and_load_keep_prompts_as_they_are(tmp_path: Path) -> None:
    model = make(gate="heads")
    save_model(model.network, model.processor.tokenizer, tmp_path / "m", learnt=set())
    again = load(tmp_path / "m")
    assert again.network.config == model.network.config
    one, two = model.network.state_dict(), again.network.state_dict()
    assert set(one) == set(two)
    assert all(torch.equal(one[name], two[name]) for name in one)
    batch = collate([[model.processor.encode(samples()[2])]], 0)
    with torch.no_grad():
        assert torch.equal(model.network(batch).hidden_BTD, again.network(batch).hidden_BTD)
    with pytest.raises(ConfigError, match="a model with adaption prompts"):
        export_hf(tmp_path / "m", tmp_path / "out", "llava")


def recipe(**changes: Any) -> Recipe:
    overrides = ["stages.align.steps=1", "stages.instruct.steps=4",
                 "stages.instruct.learns=[{part: adapter, lr: 0.05, weight_decay: 0.02}]"]  # fmt: skip
    made: Recipe = RECIPES.find("tiny")()
    return made.model_copy(update={"model": config(**changes)}).override(overrides)


def train(made: Recipe, folder: Path) -> Path:
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache")
    train_recipe(made, lambda: build_pretrained(made.model), save_model, options)
    return folder / "model"


def test_only_prompts_and_gates_learn(tmp_path: Path) -> None:
    made = recipe()
    made = made.model_copy(update={"stages": made.stages[1:]})
    torch.manual_seed(made.seed)
    before = build_pretrained(made.model)[0].state_dict()
    after = load_model(train(made, tmp_path / "a"))[0].state_dict()
    assert set(before) == set(after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if ".adaption_prompt." in name}
    assert len(moved) == 2 * PROMPTS["layers"]


def test_a_second_run_takes_the_prompts_or_says_why_not(tmp_path: Path) -> None:
    first = train(recipe(), tmp_path / "a")
    again, _ = build_pretrained(config())
    assert start_from(again, first).new == []
    trained = load_model(first)[0].state_dict()
    assert all(torch.equal(trained[name], value) for name, value in again.state_dict().items())
    for adapter in (None, LoraConfig(rank=2), AdaptionPromptConfig(layers=1, length=4)):
        other, _ = build_pretrained(tiny_model().model_copy(update={"adapter": adapter}))
        inject_adapter(other)
        with pytest.raises(WeightsError, match="have no place in this one"):
            start_from(other, first)
    wider = tiny_model().override(["backbone.arch.intermediate_size=80"])
    other, _ = build_pretrained(wider.model_copy(update={"adapter": config().adapter}))
    assert start_from(other, first).new == ["adapter", "backbone"]


def test_prompts_start_beside_a_merged_low_rank_adapter(tmp_path: Path) -> None:
    low_rank, tokenizer = build_pretrained(tiny_model().override(["adapter={rank: 2}"]))
    inject_adapter(low_rank)
    for name, parameter in low_rank.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0, 0.2)
    save_model(low_rank, tokenizer, tmp_path / "m", learnt=set())
    model, _ = build_pretrained(config())
    assert start_from(model, tmp_path / "m").new == ["adapter"]
    merged = load_model(tmp_path / "m")[0].state_dict()
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in merged.items())


def test_prompts_are_counted() -> None:
    width = config().backbone.d_model
    expected = PROMPTS["layers"] * (PROMPTS["length"] * width + 1)
    assert adapter_size(config()) == part_sizes(config())["adapter"] == expected


def test_what_cannot_have_prompts_is_refused() -> None:
    arch = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 90}
    gpt2 = CausalLMConfig(arch=arch).build()
    with pytest.raises(ConfigError, match="'gpt2'"):
        gpt2.add_prompts(1, LENGTH, "layer")
    with pytest.raises(ConfigError, match="30 layers of a language model that has 2"):
        MultimodalModel(config(layers=30))


def test_a_config_without_kind_is_low_rank() -> None:
    old = tiny_model().to_dict() | {"adapter": {"rank": 4, "alpha": 8.0}}
    assert ModelConfig.from_dict(old).adapter == LoraConfig(rank=4, alpha=8.0)
    with pytest.raises(ConfigError, match="adaption_prompt"):
        ModelConfig.from_dict(old | {"adapter": {"kind": "adaptation_prompt"}})
