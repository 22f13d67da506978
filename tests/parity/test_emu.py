"""Emu and Emu2 behind the encoder, written a second time over transformers' LLaMA and T5: the embeddings that they write, and their loss.

The encoders are compared elsewhere (test_eva2.py, test_hf_families.py), as is what makes pictures of the embeddings (test_diffusers.py).

Shape legend: T tokens, D LLM width, M pictures, L features of width F each, N embeddings of width C, K words that are learned.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from test_more_projectors import FORMER, renamed
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.sample import parse_sample
from sensorium.inference.extending import extended
from sensorium.inference.regressing import Room, go_on, negative
from sensorium.input_projectors.avg_pool import AvgPoolConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import ModelConfig
from sensorium.nn.pretrained import from_config
from sensorium.processing.collate import collate
from sensorium.recipes import TINY_FORMS
from sensorium.training.objectives.regress import RegressConfig

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")


class Second:
    """One row at a time, each embedding by the whole row again."""

    def __init__(self, ours: Any) -> None:
        from transformers import LlamaForCausalLM

        self.lm: Any = from_config(LlamaForCausalLM, ours.backbone.lm.config, None).eval()
        self.lm.load_state_dict(ours.backbone.lm.state_dict())
        self.head_CD = ours.hands["image"].out.weight
        self.projector = ours.projectors["image"]
        self.in_llm_space = ours.config.hands["image"].reader.feeds_back == "llm"
        self.count = ours.config.ways["image"].reads

    def pictures(self, features_MLF: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be foretold (M, N, C), and what the LLM reads of it (M, N, D)."""
        if self.in_llm_space:
            read_MND = self._former(features_MLF)
            return read_MND, read_MND
        side = int(features_MLF.shape[1] ** 0.5)
        wide = round(self.count**0.5)
        map_MFHW = features_MLF.transpose(1, 2).unflatten(2, (side, side))
        pooled_MNC = F.avg_pool2d(map_MFHW, side // wide).flatten(2).transpose(1, 2)
        return pooled_MNC, self.read(pooled_MNC)

    def read(self, embeddings: Tensor) -> Tensor:
        if self.in_llm_space:
            return embeddings
        (weight_DC,) = self.projector.parameters()
        return embeddings @ weight_DC.T

    def _former(self, features_MLF: Tensor) -> Tensor:
        from transformers import T5Config
        from transformers.models.t5.modeling_t5 import T5Stack

        told = self.projector.config
        arch = T5Config(
            d_model=told.width, d_kv=told.head_dim, d_ff=told.mlp_width, num_layers=told.layers, num_decoder_layers=told.layers,
            num_heads=told.heads, vocab_size=8, relative_attention_num_buckets=told.buckets,
            relative_attention_max_distance=told.furthest, is_decoder=True, is_encoder_decoder=False, use_cache=False,
            feed_forward_proj="relu",
        )  # fmt: skip
        stack: Any = T5Stack(arch).eval()
        for block in stack.block:
            for name in ("k", "v"):
                setattr(block.layer[1].EncDecAttention, name, nn.Linear(features_MLF.shape[-1], told.width, bias=False))
        own = stack.state_dict()
        for name, value in self.projector.state_dict().items():
            if not name.startswith(("queries", "out.")):
                own[renamed(name, FORMER)].copy_(value)
        queries = self.projector.queries_QD.expand(len(features_MLF), -1, -1)
        return self.projector.out(stack(inputs_embeds=queries, encoder_hidden_states=features_MLF).last_hidden_state)

    def embeds(self, ids: list[int], slots: list[int], read_MND: Tensor | None) -> Tensor:
        """Words, and in the slots what the LLM reads of pictures, (T, D)."""
        embeds_TD = self.lm.get_input_embeddings()(torch.tensor(ids)).clone()
        if read_MND is not None:
            embeds_TD[slots] = read_MND.flatten(0, 1)
        return embeds_TD

    def states(self, embeds_TD: Tensor) -> Tensor:
        return self.lm.model(inputs_embeds=embeds_TD[None]).last_hidden_state[0]

    def written(self, embeds_TD: Tensor) -> Tensor:
        """A picture behind a row that ends with the token which begins one, (N, C)."""
        made_NC = torch.zeros(0, self.head_CD.shape[0])
        for number in range(self.count):
            states_TD = self.states(torch.cat([embeds_TD, self.read(made_NC)]))
            made_NC = states_TD[-number - 1 :] @ self.head_CD.T
        return made_NC


@pytest.fixture(scope="module", params=["emu", "emu2", "emu2-chat", "emu2-gen"])
def pair(request: pytest.FixtureRequest) -> tuple[str, Model, Second]:
    torch.manual_seed(0)
    config = TINY_FORMS.find(request.param)().model
    if request.param == "emu2-chat":
        config = finer(config)
    model = Model(*build_pretrained(config.model_copy(update={"adapter": None})))
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if parameter.ndim > 1 and name.startswith(("backbone", "projectors", "hands")):
                parameter.normal_(0, 0.15)
    return request.param.partition("-")[0], model, Second(model.network)


def finer(config: ModelConfig) -> ModelConfig:
    """With four times as many tokens of a picture, as the original has beside Emu2."""
    lane, hand = config.lanes["image"], config.hands["image"]
    lane = lane.model_copy(update={"projector": AvgPoolConfig(side=4, bias=False)})
    hand = hand.model_copy(update={"generator": hand.generator.model_copy(update={"length": 16})})
    return config.model_copy(update={"lanes": {"image": lane}, "hands": {"image": hand}})


def picture(shade: int) -> dict[str, Any]:
    return {"type": "image", "image": Image.linear_gradient("L").rotate(shade).convert("RGB").resize((50, 30))}


def row(*answer: Any) -> Any:
    return parse_sample({"messages": [
        {"role": "user", "content": [picture(200), {"type": "text", "text": "Next?"}]}, {"role": "assistant", "content": list(answer)}]})  # fmt: skip


def seen(model: Model, second: Second, media: Any) -> tuple[Tensor, Tensor]:
    features = model.network.encode("image", media)
    assert all(grid.prefix == 0 or second.in_llm_space for grid in features.grids)
    return second.pictures(features.values_ND.unflatten(0, (len(features.lengths), -1)))


@torch.no_grad()
def test_the_embeddings_that_are_written(pair: tuple[str, Model, Second], record: Callable[..., None]) -> None:
    name, model, second = pair
    begin = model.processor.signals["image"][0]
    prompt = model.processor.prompt(row(".").messages[:1])
    whole = extended(prompt, [*model.tokenizer.encode("It: "), begin])
    ids = whole.input_ids[len(prompt) :]
    _, (made_1NC,) = go_on(model.network, model.processor, "image", prompt, ids, Room())
    media = collate([[prompt]], 0).media["image"]
    theirs_NC = second.written(second.embeds(whole.input_ids, whole.slots["image"], seen(model, second, media)[1]))
    record(name, "made", ours=made_1NC[0], theirs=theirs_NC)
    # And what is led away from, behind no text.
    bos = model.tokenizer.bos_id
    alone = [*([bos] if model.processor.template.bos and bos is not None else []), begin]
    record(name, "made", ours=negative(model.network, model.processor, "image")[0], theirs=second.written(second.embeds(alone, [], None)))


@torch.no_grad()
def test_frames_of_emu2_chat(record: Callable[..., None]) -> None:
    """emu.py, `encode_image` with `v_query`: of a frame a quarter of the tokens, through the same map; lm.py's token in front of the first."""
    torch.manual_seed(0)
    model = Model(*build_pretrained(finer(TINY_FORMS.find("emu2-chat")().model)))
    second = Second(model.network)
    film = {"type": "video", "video": [picture(shade)["image"] for shade in (20, 60, 100)]}
    asked = {"role": "user", "content": [picture(200), film, {"type": "text", "text": "Next?"}]}
    prompt = model.processor.prompt(parse_sample({"messages": [asked]}).messages)
    media = collate([[prompt]], 0).media["image"]
    maps_MLF = model.network.encode("image", media).values_ND.unflatten(0, (4, -1))
    read = [second.pictures(maps_MLF[:1])[1]]
    second.count //= 4
    read.append(second.pictures(maps_MLF[1:])[1])
    theirs_ND = torch.cat([one.flatten(0, 1) for one in read])
    assert len(theirs_ND) == 16 + 3 * 4
    record("emu2", "made", ours=model.network.features({"image": media})["image"].values_ND, theirs=theirs_ND)
    text = model.tokenizer.decode(prompt.input_ids, keep_special=True)
    shown = ["[IMG]" + "<|endoftext|>" * count + "[/IMG]" for count in (16, 4, 4, 4)]
    assert f"[USER]: {shown[0]}[VIDEO]{''.join(shown[1:])}Next? [ASSISTANT]:" in text
    assert len(prompt.slots["image"]) == len(theirs_ND)
    # Planned by headers, and answered from.
    assert model.processor.measure(parse_sample({"messages": [asked, {"role": "assistant", "content": "."}]})).slots["image"] == prompt.slots["image"]
    assert isinstance(model.respond(parse_sample({"messages": [asked]}).messages, max_tokens=3), str)


@torch.no_grad()
@pytest.mark.parametrize("last_only", [False, True])
def test_the_loss(pair: tuple[str, Model, Second], last_only: bool, record: Callable[..., None]) -> None:
    """Padded, and packed: a word by its cross-entropy, an embedding by its distance, each as much. Of Emu2-Gen only the last picture's count."""
    name, model, second = pair
    text = {"type": "text", "text": "It: "}
    asked = (row(text, picture(9), picture(80)), row({"type": "text", "text": "No."}), row(text, picture(40)))
    rows = [model.processor.encode(one) for one in asked]
    total, count = 0.0, 0
    for one in rows:
        true_MNC, read_MND = seen(model, second, collate([[one]], 0).media["image"])
        states_TD = second.states(second.embeds(one.input_ids, one.slots["image"], read_MND))
        learned = torch.tensor(one.learn[1:])
        scores_KV = second.lm.lm_head(states_TD[:-1][learned])
        total += float(F.cross_entropy(scores_KV, torch.tensor(one.input_ids[1:])[learned], reduction="sum"))
        # The first picture is the question's.
        foretold = list(zip(true_MNC[1:], one.wanted, strict=True))[-1 if last_only else None :]
        count += int(learned.sum()) + len(foretold) * second.count
        for true_NC, wanted in foretold:
            made_NC = states_TD[wanted.start : wanted.start + second.count] @ second.head_CD.T
            total += float((made_NC - true_NC).norm(dim=-1).sum())
    objective = RegressConfig(last_only=last_only).build(model.network, model.processor, [])
    for batch in (collate([[one] for one in rows], model.tokenizer.pad_id), collate([rows], model.tokenizer.pad_id)):
        found = objective(model.network, batch)
        assert found.count == count
        record(name, "loss", ours=found.total / found.count, theirs=torch.tensor(total / count))
