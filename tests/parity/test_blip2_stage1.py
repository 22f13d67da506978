"""BLIP-2's first stage against transformers: contrast and matching by `Blip2ForImageTextRetrieval`, writing by
a BERT decoder that is given the queries' keys and values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_models import VISION
from test_hf_families import normalised, pixels
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import MediaBatch, TilePlan
from sensorium.core.errors import WeightsError
from sensorium.interop.blip2_stage1 import HF, lavis_to_ours, lavis_to_theirs
from sensorium.interop.families.blip2 import Blip2
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.contrastive import image_text_scores
from sensorium.training.objectives.query_pretrain import q_former
from sensorium.training.objectives.query_text import QueryText, writing_mask

FORMER = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
          "intermediate_size": 48, "encoder_hidden_size": 32, "max_position_embeddings": 512}  # fmt: skip
TEXT = {"model_type": "opt", "vocab_size": 100, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 1,
        "num_attention_heads": 4, "max_position_embeddings": 64, "word_embed_proj_dim": 32}  # fmt: skip
CAPTIONS = [[2, 5, 6, 7, 3], [2, 9, 3], [2, 8, 7, 6, 5, 4, 3], [2, 11, 12, 3]]


@pytest.fixture(scope="module")
def theirs() -> Any:
    from transformers import Blip2Config, Blip2ForImageTextRetrieval

    torch.manual_seed(5)
    config = Blip2Config(vision_config=VISION, qformer_config=FORMER | {"use_qformer_text_input": True},
                         text_config=TEXT, num_query_tokens=4, image_text_hidden_size=24)  # fmt: skip
    model = Blip2ForImageTextRetrieval(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.2)
            if name.endswith("self_attn.qkv.bias"):
                # As EVA-CLIP has it: keys have no bias.
                parameter[32:64] = 0
    return model


@pytest.fixture(scope="module")
def ours(theirs: Any) -> MultimodalModel:
    """The model with the objective's module beside it, filled from transformers' names."""
    model = MultimodalModel(Blip2().to_ours(theirs.config.to_dict())).eval()
    module = QueryText(q_former(model).config, words=50, width=24, temperature=0.07)
    model.add_module("objective", module.eval())
    with torch.no_grad():
        for parameter in module.writer.parameters():
            parameter.normal_(0, 0.2)
    taken = HF.to_ours(theirs.state_dict())
    left = model.load_state_dict(taken, strict=False)
    assert not left.unexpected_keys
    new = {n for n in left.missing_keys if not n.startswith(("backbone.", "projectors.image.out."))}
    assert new == {"objective.temperature", *(n for n in model.state_dict() if ".writer." in n)}
    return model


def captions() -> tuple[Tensor, Tensor]:
    longest = max(map(len, CAPTIONS))
    ids_MS = torch.tensor([c + [0] * (longest - len(c)) for c in CAPTIONS])
    lengths_M = torch.tensor([len(c) for c in CAPTIONS])
    return ids_MS, torch.arange(longest) < lengths_M[:, None]


def seen(model: MultimodalModel, raw: Tensor) -> Tensor:
    return model.encode("image", MediaBatch(raw, (TilePlan(),) * len(raw))).values_ND.unflatten(0, (len(raw), -1))


def module_of(model: MultimodalModel) -> QueryText:
    module = model.get_submodule("objective")
    assert isinstance(module, QueryText)
    return module


@torch.no_grad()
def test_contrast(theirs: Any, ours: MultimodalModel, record: Callable[..., None]) -> None:
    """Every picture with every caption; captions of several lengths."""
    raw, (ids_MS, real_MS) = pixels(3), captions()
    former, module = q_former(ours), module_of(ours)
    query_MQD, _ = module.written(former, seen(ours, raw), ids_MS[:3], real_MS[:3])
    text_ME = module.text_features(former, ids_MS, real_MS)
    scores_MT = image_text_scores(module.image_features(query_MQD), text_ME)
    want = theirs(pixel_values=normalised(raw), input_ids=ids_MS, attention_mask=real_MS.long())
    record("blip2-retrieval", "1", "right", ours=scores_MT, theirs=want.logits_per_image)


@torch.no_grad()
def test_matching(theirs: Any, ours: MultimodalModel, record: Callable[..., None]) -> None:
    raw, (ids_MS, real_MS) = pixels(4), captions()
    got_M2 = module_of(ours).matches(q_former(ours), seen(ours, raw), ids_MS, real_MS)
    want = theirs(pixel_values=normalised(raw), input_ids=ids_MS, attention_mask=real_MS.long(),
                  use_image_text_matching_head=True)  # fmt: skip
    record("blip2-retrieval", "1", "right", ours=got_M2, theirs=want.logits_per_image)


def decoder(theirs: Any, module: QueryText) -> Any:
    """transformers' BERT decoder with the Q-Former's self-attention and its text half."""
    from transformers import BertConfig, BertLMHeadModel

    sizes: dict[str, Any] = {k: v for k, v in FORMER.items() if k != "encoder_hidden_size"}
    model = BertLMHeadModel(BertConfig(**sizes, is_decoder=True, layer_norm_eps=1e-12)).eval()
    state = {"bert.embeddings.token_type_embeddings.weight": torch.zeros(2, 32)}
    for name, value in theirs.state_dict().items():
        if name.startswith("embeddings."):
            state[f"bert.{name}"] = value
        elif name.startswith("qformer.layernorm."):
            state[name.replace("qformer.layernorm", "bert.embeddings.LayerNorm")] = value
        elif name.startswith("qformer.encoder.") and "cross" not in name and "_query" not in name:
            inner = name.replace("attention.attention.", "attention.self.").removeprefix("qformer.")
            state[f"bert.{inner}"] = value
    head = "cls.predictions."
    state |= {f"{head}transform.dense.{n}": v for n, v in module.writer.dense.state_dict().items()}
    state |= {f"{head}transform.LayerNorm.{n}": v for n, v in module.writer.norm.state_dict().items()}
    state |= {f"{head}bias": module.writer.bias, f"{head}decoder.bias": module.writer.bias,
              f"{head}decoder.weight": theirs.embeddings.word_embeddings.weight}  # fmt: skip
    left = model.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert not [n for n in left.missing_keys if "position_ids" not in n and "token_type_ids" not in n]
    return model


@torch.no_grad()
def test_writing(theirs: Any, ours: MultimodalModel) -> None:
    """The decoder reads the keys and values that the queries had in transformers' Q-Former."""
    from transformers import DynamicCache

    raw, (ids_MS, real_MS) = pixels(4), captions()
    kept: list[Tensor] = []
    hooks = [linear.register_forward_hook(lambda _m, _i, out: kept.append(out.unflatten(-1, (4, 8)).transpose(1, 2)))
             for layer in theirs.qformer.encoder.layer
             for linear in (layer.attention.attention.key, layer.attention.attention.value)]  # fmt: skip
    image_MLD = theirs.vision_model(pixel_values=normalised(raw))[0]
    query_MQD = theirs.qformer(query_embeds=theirs.query_tokens.expand(4, -1, -1),
                               encoder_hidden_states=image_MLD).last_hidden_state  # fmt: skip
    for hook in hooks:
        hook.remove()
    cache = DynamicCache()
    for i in range(4):
        cache.update(kept[2 * i], kept[2 * i + 1], i)
    length = ids_MS.shape[1]
    want = decoder(theirs, module_of(ours))(
        input_ids=ids_MS, attention_mask=F.pad(real_MS, (4, 0), value=True).long(),
        position_ids=torch.arange(length).expand(4, -1), past_key_values=cache,
    ).logits  # fmt: skip
    got_MQD, got_MSV = module_of(ours).written(q_former(ours), seen(ours, raw), ids_MS, real_MS)
    torch.testing.assert_close(got_MQD, query_MQD, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got_MSV[real_MS], want[real_MS], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_who_sees_whom(ours: MultimodalModel) -> None:
    """Writing: no word sees a later one, no query sees a word. Matching: all queries see all words.
    Contrast: captions see no picture."""
    raw, (ids_MS, real_MS) = pixels(4), captions()
    former, module, image_MLD = q_former(ours), module_of(ours), seen(ours, raw)
    changed_MS = ids_MS.clone()
    changed_MS[:, 2] = 20
    queries, words = module.written(former, image_MLD, ids_MS, real_MS)
    queries_2, words_2 = module.written(former, image_MLD, changed_MS, real_MS)
    assert torch.equal(queries, queries_2)
    assert torch.equal(words[:, :2], words_2[:, :2])
    assert not torch.allclose(words[:, 2], words_2[:, 2], atol=1e-3)
    _, other = module.written(former, image_MLD.roll(1, 0), ids_MS, real_MS)
    assert not torch.allclose(words[:, 0], other[:, 0], atol=1e-3)
    one = module.matches(former, image_MLD, ids_MS, real_MS)
    assert not torch.allclose(one, module.matches(former, image_MLD, changed_MS, real_MS), atol=1e-4)
    unreal_MS = torch.where(real_MS, ids_MS, 30)
    assert torch.equal(one, module.matches(former, image_MLD, unreal_MS, real_MS))


def test_the_mask_of_writing() -> None:
    mask = writing_mask(2, torch.tensor([[True, True, False]]))
    drawn = ["".join(".1"[int(x)] for x in row) for row in mask[0, 0]]
    assert drawn == ["11...", "11...", "111..", "1111.", "1111."]


@torch.no_grad()
def test_returns_as_it_came(theirs: Any, ours: MultimodalModel, record: Callable[..., None]) -> None:
    state = {n: v for n, v in ours.state_dict().items()
             if not n.startswith(("backbone.", "projectors.image.out.", "objective.writer.", "objective.temp"))}  # fmt: skip
    back = HF.to_theirs(state)
    known = theirs.state_dict()
    assert set(back) == set(known)
    assert all(torch.equal(back[name], known[name]) for name in known)
    record("blip2-retrieval", "export")


def lavis_names(layers: int, blocks: int) -> set[str]:
    """Of `blip2_pretrained.pth`, as blip2_qformer.py, Qformer.py and eva_vit.py name their modules."""
    both = [f"{x}.{end}" for x in ("query", "key", "value") for end in ("weight", "bias")]
    names = {"query_tokens", "temp"}
    pairs = ["vision_proj", "text_proj", "itm_head", "ln_vision", "visual_encoder.patch_embed.proj",
             "Qformer.bert.embeddings.LayerNorm"]  # fmt: skip
    names |= {f"Qformer.bert.embeddings.{x}" for x in
              ("word_embeddings.weight", "position_embeddings.weight", "position_ids")}  # fmt: skip
    for i in range(layers):
        layer = f"Qformer.bert.encoder.layer.{i}."
        kinds = ["attention", "crossattention"] if i % 2 == 0 else ["attention"]
        for kind in kinds:
            names |= {f"{layer}{kind}.self.{x}" for x in both}
            pairs += [f"{layer}{kind}.output.{x}" for x in ("dense", "LayerNorm")]
        for query in ("", "_query"):
            pairs += [f"{layer}intermediate{query}.dense",
                      *(f"{layer}output{query}.{x}" for x in ("dense", "LayerNorm"))]  # fmt: skip
    head = "Qformer.cls.predictions."
    pairs += [f"{head}transform.dense", f"{head}transform.LayerNorm", f"{head}decoder"]
    names |= {f"{head}bias", "visual_encoder.cls_token", "visual_encoder.pos_embed"}
    for i in range(blocks):
        block = f"visual_encoder.blocks.{i}."
        names |= {f"{block}attn.{x}" for x in ("q_bias", "v_bias", "qkv.weight")}
        pairs += [f"{block}{x}" for x in ("norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2")]
    return names | {f"{name}.{end}" for name in pairs for end in ("weight", "bias")}


@torch.no_grad()
def test_lavis_there_and_back(ours: MultimodalModel) -> None:
    state = ours.state_dict()
    theirs = lavis_to_theirs(state)
    assert set(theirs) == lavis_names(layers=4, blocks=3)
    assert theirs["query_tokens"].shape == (1, 4, 32)
    assert theirs["visual_encoder.blocks.1.attn.q_bias"].shape == (32,)
    back = lavis_to_ours(theirs)
    assert set(back) == {n for n in state if not n.startswith(("backbone.", "projectors.image.out."))}
    assert all(torch.equal(value, state[name]) for name, value in back.items())
    theirs["Qformer.cls.predictions.decoder.weight"] = theirs["Qformer.cls.predictions.decoder.weight"] + 1
    with pytest.raises(WeightsError, match=r"decoder\.weight differs"):
        lavis_to_ours(theirs)


@torch.no_grad()
def test_an_own_text_half_is_used(tmp_path: Path) -> None:
    """InstructBLIP's Q-Former reads captions by its own words."""
    from sensorium.input_projectors.qformer import QFormerConfig

    config = QFormerConfig.tiny().model_copy(update={"words": 30, "max_words": 9})
    former, module = config.build(16, 8), QueryText(config, 30, 12, 0.07)
    assert not any(name.startswith("text.") for name in module.state_dict())
    ids_MS, real_MS = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([[True] * 3, [True, True, False]])
    before = module.text_features(former, ids_MS, real_MS)
    former.words.weight[3, 0] += 5  # pyright: ignore
    after = module.text_features(former, ids_MS, real_MS)
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1], after[1])
