"""Checkpoints as the authors' repositories save them: imported, they are transformers' class with the
same tensors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layouts import (
    IMAGE,
    QFORMER_12,
    TEXT,
    VISION_16,
    lavis,
    llava_repository,
    save_llm,
    spread,
    without_key_bias,
    write_folder,
)
from safetensors.torch import save_file
from test_hf_families import batch_of, normalised, our_greedy
from torch import Tensor

from sensorium.core.batch import Example, MediaBatch, TilePlan
from sensorium.interop.original import is_original, read_original
from sensorium.interop.originals.base import Beside
from sensorium.model.multimodal import MultimodalModel


def pictures(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 28, 28), dtype=torch.uint8)


def with_pictures(ids: list[int], raw: Tensor, per_picture: int) -> Example:
    slots = [i for i, token in enumerate(ids) if token == IMAGE]
    seen, index = 0, []
    for token in ids:
        seen += token == IMAGE
        index.append(-(-seen // per_picture))
    media = {"image": MediaBatch(raw, (TilePlan(),) * len(raw))}
    return Example(ids, [False] * len(ids), {"image": slots}, media, index)


@torch.no_grad()
def assert_equal_answers(ours: MultimodalModel, theirs: Any, count: int = 2, per_picture: int = 4) -> None:
    """Logits and greedy text, pictures at the start, in the middle and at the end, rows of two
    lengths."""
    raw = pictures(count)
    place = [IMAGE] * per_picture
    rows = [[1, 5, *place, 7, 8, *place, 9, 10], [*place, 11, 12, 13, *place]]
    examples = [with_pictures(ids, raw, per_picture) for ids in rows]
    output = ours(batch_of(*examples))
    for row, ids in enumerate(rows):
        tensor = torch.tensor([ids])
        given = {"input_ids": tensor, "pixel_values": normalised(raw), "attention_mask": torch.ones_like(tensor)}
        expected = theirs(**given).logits
        got = ours.logits(output.hidden_BTD[row : row + 1, : len(ids)])
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
        text = theirs.generate(**given, max_new_tokens=8, min_new_tokens=8, do_sample=False,
                               eos_token_id=-1, pad_token_id=0)[0].tolist()[-8:]  # fmt: skip
        assert our_greedy(ours, [examples[row]], 8) == [text]


# LLaVA's repository -----------------------------------------------------------------------------


def llava_oracle(act: str = "gelu") -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    vision = {"model_type": "clip_vision_model", **VISION_16}
    return spread(LlavaForConditionalGeneration(LlavaConfig(
        vision_config=vision, text_config=TEXT, image_token_index=IMAGE, projector_hidden_act=act,
    )))  # fmt: skip


def llava_config(**changes: Any) -> dict[str, Any]:
    own = {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"], "mm_projector_type": "mlp2x_gelu",
           "mm_vision_tower": "openai/clip-vit-large-patch14-336", "mm_vision_select_layer": -2,
           "mm_vision_select_feature": "patch", "mm_hidden_size": 32, "image_aspect_ratio": "pad",
           "mm_use_im_start_end": False, "tune_mm_mlp_adapter": False, "use_mm_proj": True}  # fmt: skip
    return TEXT | own | changes


@pytest.mark.parametrize("shards", [1, 3])
def test_llava_whole(shards: int, tmp_path: Path) -> None:
    theirs = llava_oracle()
    write_folder(tmp_path / "llava", llava_config(), llava_repository(theirs), shards)
    assert is_original(tmp_path / "llava")
    ours = read_original(tmp_path / "llava", Beside())
    assert ours.config.template == "vicuna"
    assert ours.config.lane("image").encoder.preprocess().size_px == 28
    assert_equal_answers(ours, theirs)


def split_llava(theirs: Any, folder: Path) -> tuple[dict[str, Tensor], Beside]:
    """The projector's tensors; language model and tower in folders of their own."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    llm = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in TEXT.items() if k != "model_type"}))
    llm.model.load_state_dict(theirs.model.language_model.state_dict())
    llm.lm_head.load_state_dict(theirs.lm_head.state_dict())
    tower = CLIPVisionModel(CLIPVisionConfig(**VISION_16))
    tower.load_state_dict(theirs.model.vision_tower.state_dict())
    tower.save_pretrained(folder / "tower")
    named = {k: v for k, v in llava_repository(theirs).items() if "mm_projector" in k}
    return named, Beside(llm=save_llm(llm, folder / "llm"), tower=folder / "tower")


@pytest.mark.parametrize("beside_config", [True, False])
def test_llava_projector_alone(beside_config: bool, tmp_path: Path) -> None:
    theirs = llava_oracle()
    named, beside = split_llava(theirs, tmp_path)
    (tmp_path / "mm").mkdir()
    torch.save(named, tmp_path / "mm" / "mm_projector.bin")
    if beside_config:
        (tmp_path / "mm" / "config.json").write_text(json.dumps(llava_config()))
    path = tmp_path / "mm" if beside_config else tmp_path / "mm" / "mm_projector.bin"
    assert_equal_answers(read_original(path, beside), theirs)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_llava_lora(ending: str, rslora: bool, tmp_path: Path) -> None:
    """`adapter_model.*` over a base, and projector and all else that learnt beside it."""
    import peft

    theirs = llava_oracle()
    named, beside = split_llava(theirs, tmp_path)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], use_rslora=rslora)
    # The tower has layers of the first of these names too; LLaVA adapts the language model alone.
    config.exclude_modules = r".*vision_tower.*"
    wrapped = peft.get_peft_model(theirs, config)
    spread(wrapped)
    adapter = {k.replace("model.language_model.", "model."): v
               for k, v in peft.get_peft_model_state_dict(wrapped).items()}  # fmt: skip
    base = wrapped.get_base_model()
    named = {k: v for k, v in llava_repository(base).items() if "mm_projector" in k}
    llm = {k.replace(".base_layer.", "."): v for k, v in llava_repository(base).items()
           if "lora_" not in k and "vision_tower" not in k and "mm_projector" not in k}  # fmt: skip
    save_file({k: v.contiguous() for k, v in llm.items()}, tmp_path / "llm" / "model.safetensors", metadata={"format": "pt"})
    tower = {k.removeprefix("model.vision_tower.vision_tower."): v.contiguous()
             for k, v in llava_repository(base).items() if "vision_tower" in k and "position_ids" not in k}  # fmt: skip
    save_file(tower, tmp_path / "tower" / "model.safetensors", metadata={"format": "pt"})
    folder = tmp_path / "lora"
    folder.mkdir()
    wrapped.peft_config["default"].save_pretrained(str(folder))
    if ending == "bin":
        torch.save(adapter, folder / "adapter_model.bin")
    else:
        save_file({k: v.contiguous() for k, v in adapter.items()}, folder / "adapter_model.safetensors")
    torch.save({f"base_model.model.{k}": v for k, v in named.items()}, folder / "non_lora_trainables.bin")
    (folder / "config.json").write_text(json.dumps(llava_config()))
    assert_equal_answers(read_original(folder, beside), wrapped.merge_and_unload())


def test_llava_v1_and_shikra_have_one_linear_map_and_markers(tmp_path: Path) -> None:
    theirs = llava_oracle("linear")
    # transformers always builds two layers: with no activation between, the second an identity.
    second = theirs.model.multi_modal_projector.linear_2
    with torch.no_grad():
        second.weight.copy_(torch.eye(32))
        second.bias.zero_()
    tensors = {k.replace("mm_projector.0.", "mm_projector."): v
               for k, v in llava_repository(theirs).items() if "mm_projector.2." not in k}  # fmt: skip
    config = llava_config(mm_use_im_start_end=True)
    del config["mm_projector_type"]
    write_folder(tmp_path / "v1", config, tensors)
    ours = read_original(tmp_path / "v1", Beside())
    assert ours.config.template == "vicuna_markers"
    assert_equal_answers(ours, theirs)
    write_folder(tmp_path / "shikra", config | {"model_type": "shikra"}, tensors)
    ours = read_original(tmp_path / "shikra", Beside())
    assert (ours.config.template, ours.config.boxes) == ("shikra", "shikra")
    assert_equal_answers(ours, theirs)


# LAVIS and MiniGPT-4 ----------------------------------------------------------------------------


def blip2_oracle(text: dict[str, Any], *, reads: bool = False) -> Any:
    import transformers

    name = "InstructBlip" if reads else "Blip2"
    config = getattr(transformers, f"{name}Config")(
        vision_config=VISION_16, qformer_config=QFORMER_12, text_config=text, num_query_tokens=4,
        image_token_index=IMAGE,
    )  # fmt: skip
    return without_key_bias(spread(getattr(transformers, f"{name}ForConditionalGeneration")(config)))


OPT = {"model_type": "opt", "vocab_size": 300, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2,
       "num_attention_heads": 4, "max_position_embeddings": 64, "word_embed_proj_dim": 32}  # fmt: skip


def llm_of(model: Any, folder: Path) -> Path:
    inner = model.language_model if hasattr(model, "language_model") else model.model.language_model
    return save_llm(inner, folder)


@pytest.mark.parametrize("tower", ["inside", "beside"])
def test_lavis_blip2(tower: str, tmp_path: Path) -> None:
    theirs = blip2_oracle(OPT)
    tensors = lavis(theirs, "opt_proj")
    beside = Beside(llm=llm_of(theirs, tmp_path / "opt"))
    if tower == "beside":
        eye = {k.removeprefix("visual_encoder."): v for k, v in tensors.items() if k.startswith("visual_encoder.")}
        tensors = {k: v for k, v in tensors.items() if not k.startswith("visual_encoder.")}
        # The file of EVA-CLIP-g goes on behind what LAVIS runs.
        eye |= {"blocks.39.norm1.weight": torch.ones(32), "norm.weight": torch.ones(32)}
        torch.save(eye, tmp_path / "eva_vit_g.pth")
        beside = Beside(llm=beside.llm, tower=tmp_path / "eva_vit_g.pth")
    tensors["Qformer.bert.embeddings.position_ids"] = torch.arange(16)[None]
    torch.save({"model": tensors, "optimizer": {"state": {}}, "epoch": 3}, tmp_path / "blip2.pth")
    assert_equal_answers(read_original(tmp_path / "blip2.pth", beside), theirs)


def test_minigpt4_lies_on_a_blip2(tmp_path: Path) -> None:
    """Its checkpoint holds one map; the Q-Former comes from a BLIP-2 before T5."""
    theirs = blip2_oracle(TEXT)
    tensors = lavis(theirs, "llama_proj")
    mine = {k: tensors.pop(k) for k in ("llama_proj.weight", "llama_proj.bias")}
    tensors |= {"t5_proj.weight": torch.zeros(64, 48), "t5_proj.bias": torch.zeros(64)}
    torch.save({"model": tensors}, tmp_path / "blip2_t5.pth")
    torch.save({"model": mine}, tmp_path / "minigpt4.pth")
    beside = Beside(llm=llm_of(theirs, tmp_path / "vicuna"), more=(tmp_path / "blip2_t5.pth",))
    ours = read_original(tmp_path / "minigpt4.pth", beside)
    assert ours.config.template == "minigpt4"
    assert_equal_answers(ours, theirs)


def test_lavis_instructblip_reads(tmp_path: Path) -> None:
    theirs = blip2_oracle(TEXT, reads=True)
    torch.save({"model": lavis(theirs, "llm_proj")}, tmp_path / "instruct.pth")
    beside = Beside(llm=llm_of(theirs, tmp_path / "vicuna"))
    ours = read_original(tmp_path / "instruct.pth", beside)
    raw, asked = pictures(1), [3, 4, 5]
    ids = [*[IMAGE] * 4, 7, 8, 9]
    media = {"image": MediaBatch(raw, (TilePlan(),), texts=(tuple(asked),))}
    example = replace(with_pictures(ids, raw, 4), media=media)
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            qformer_input_ids=torch.tensor([asked]), qformer_attention_mask=torch.ones(1, 3, dtype=torch.long),
            pixel_values=normalised(raw),
        ).logits  # fmt: skip
        output = ours(batch_of(example))
    torch.testing.assert_close(ours.logits(output.hidden_BTD), expected, atol=1e-5, rtol=1e-4)


def test_lavis_before_t5(tmp_path: Path) -> None:
    from hf_models import T5

    theirs = blip2_oracle(T5 | {"vocab_size": 300})
    torch.save({"model": lavis(theirs, "t5_proj")}, tmp_path / "t5.pth")
    ours = read_original(tmp_path / "t5.pth", Beside(llm=llm_of(theirs, tmp_path / "flan")))
    assert ours.config.template == "seq2seq"
    raw = pictures(1)
    with torch.no_grad():
        features = ours.projected("image", MediaBatch(raw, (TilePlan(),))).values_ND
        eye = theirs.model.vision_model(normalised(raw)).last_hidden_state if hasattr(theirs, "model") else theirs.vision_model(normalised(raw)).last_hidden_state
        inner = getattr(theirs, "model", theirs)
        queries = inner.qformer(query_embeds=inner.query_tokens, encoder_hidden_states=eye).last_hidden_state
        expected = inner.language_projection(queries)[0]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-4)
    for name, value in inner.language_model.state_dict().items():
        assert torch.equal(ours.backbone.lm.state_dict()[name], value), name


# mPLUG-Owl --------------------------------------------------------------------------------------


def test_mplug_owl(tmp_path: Path) -> None:
    """No class of transformers: its tower is CLIP's with rows of q, k and v in turn for each head."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    clip = spread(CLIPVisionModel(CLIPVisionConfig(**VISION_16, layer_norm_eps=1e-6)))
    llm = spread(LlamaForCausalLM(LlamaConfig(**{k: v for k, v in TEXT.items() if k != "model_type"})))
    tensors, abstractor = owl_tensors(clip.state_dict()), owl_abstractor()
    whole = tensors | abstractor | {f"language_model.{k}": v for k, v in llm.state_dict().items()}
    config = {
        "model_type": "mplug-owl", "num_query_tokens": 3, "vision_config": VISION_16, "text_config": TEXT,
        "visual_abstractor_config": {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24},
    }  # fmt: skip
    write_folder(tmp_path / "owl", config, whole, shards=2)
    ours = read_original(tmp_path / "owl", Beside())
    raw = pictures(2)
    with torch.no_grad():
        seen = clip.vision_model if hasattr(clip, "vision_model") else clip
        expected = seen.post_layernorm(clip(normalised(raw)).last_hidden_state)
        got = ours.encode("image", MediaBatch(raw, (TilePlan(),) * 2)).values_ND
        torch.testing.assert_close(got, expected.flatten(0, 1), atol=1e-5, rtol=1e-4)
        projected = ours.projected("image", MediaBatch(raw, (TilePlan(),) * 2)).values_ND
        torch.testing.assert_close(projected, owl_look(expected, abstractor), atol=1e-5, rtol=1e-4)
        ids = torch.tensor([[1, 5, 7, 9]])
        hidden = ours.backbone(ours.backbone.embed(ids), positions_BT=torch.arange(4)[None])
        torch.testing.assert_close(ours.logits(hidden), llm(ids).logits, atol=1e-5, rtol=1e-4)


def owl_tensors(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    plain = {k.removeprefix("vision_model."): v for k, v in clip.items()}
    owl: dict[str, Tensor] = {
        "vision_model.embeddings.cls_token": plain["embeddings.class_embedding"][None, None],
        "vision_model.embeddings.patch_embed.weight": plain["embeddings.patch_embedding.weight"],
        "vision_model.embeddings.position_embedding": plain["embeddings.position_embedding.weight"][None],
    }
    for end in ("weight", "bias"):
        owl[f"vision_model.embeddings.pre_layernorm.{end}"] = plain[f"pre_layrnorm.{end}"]
        owl[f"vision_model.post_layernorm.{end}"] = plain[f"post_layernorm.{end}"]
        for i in range(3):
            a, b = f"encoder.layers.{i}.", f"vision_model.encoder.layers.{i}."
            owl[f"{b}input_layernorm.{end}"] = plain[f"{a}layer_norm1.{end}"]
            owl[f"{b}post_attention_layernorm.{end}"] = plain[f"{a}layer_norm2.{end}"]
            owl[f"{b}self_attn.dense.{end}"] = plain[f"{a}self_attn.out_proj.{end}"]
            for name in ("fc1", "fc2"):
                owl[f"{b}mlp.{name}.{end}"] = plain[f"{a}mlp.{name}.{end}"]
            rows = []
            for head in range(16):  # of two rows each
                for letter in "qkv":
                    rows.append(plain[f"{a}self_attn.{letter}_proj.{end}"][2 * head : 2 * head + 2])
            owl[f"{b}self_attn.query_key_value.{end}"] = torch.cat(rows)
    return owl


def owl_abstractor() -> dict[str, Tensor]:
    made: dict[str, Tensor] = {"query_tokens": torch.randn(1, 3, 32), "abstractor.vit_eos": torch.randn(1, 1, 32)}

    def linear(name: str, d_in: int, d_out: int) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = torch.randn(d_out, d_in) * 0.15, torch.randn(d_out) * 0.1

    linear("abstractor.visual_fc", 32, 32)
    for i in range(2):
        at = f"abstractor.encoder.layers.{i}.crossattention."
        for name in ("attention.query", "attention.key", "attention.value", "output.out_proj"):
            linear(at + name, 32, 32)
        linear(f"{at}output.mlp.w1", 32, 24)
        linear(f"{at}output.mlp.w3", 32, 24)
        linear(f"{at}output.mlp.w2", 24, 32)
        for name, width in (("norm1", 32), ("normk", 32), ("output.norm2", 32), ("output.mlp.ffn_ln", 24)):
            made[f"{at}{name}.weight"], made[f"{at}{name}.bias"] = torch.rand(width) + 0.5, torch.randn(width) * 0.1
    return made


def owl_look(seen_MLD: Tensor, w: dict[str, Tensor]) -> Tensor:
    """The abstractor on given weights, written out from its description."""
    from torch.nn import functional as F

    z = w["query_tokens"].expand(len(seen_MLD), -1, -1)
    for i in range(2):
        at = f"abstractor.encoder.layers.{i}.crossattention."

        def norm(x: Tensor, name: str, eps: float = 1e-5, at: str = at) -> Tensor:
            scale = w[f"{at}{name}.weight"]
            return F.layer_norm(x, scale.shape, scale, w[f"{at}{name}.bias"], eps)

        def linear(x: Tensor, name: str, at: str = at) -> Tensor:
            return F.linear(x, w[f"{at}{name}.weight"], w[f"{at}{name}.bias"])

        z = norm(z, "norm1")
        both = torch.cat([z, norm(seen_MLD, "normk")], dim=1)
        q, k, v = (linear(x, f"attention.{n}").unflatten(-1, (4, 8)).transpose(1, 2)
                   for x, n in ((z, "query"), (both, "key"), (both, "value")))  # fmt: skip
        mixed = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1) @ v
        z = z + linear(mixed.transpose(1, 2).flatten(2), "output.out_proj")
        inner = norm(z, "output.norm2")
        gated = F.silu(linear(inner, "output.mlp.w1")) * linear(inner, "output.mlp.w3")
        z = z + linear(norm(gated, "output.mlp.ffn_ln", 1e-6), "output.mlp.w2")
    out = F.linear(z, w["abstractor.visual_fc.weight"], w["abstractor.visual_fc.bias"])
    return torch.cat([out, w["abstractor.vit_eos"].expand(len(out), -1, -1)], dim=1).flatten(0, 1)
