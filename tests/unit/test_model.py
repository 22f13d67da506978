"""The model: packing, caching, batching and streaming change nothing; gates start shut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.api import Model
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import AlignmentError, ConfigError, DataError
from sensorium.core.sample import Sample, parse_sample
from sensorium.encoders.eva2 import Eva2Config
from sensorium.encoders.qwen2_vit import Qwen2VitConfig
from sensorium.encoders.tower import tiny_shape
from sensorium.encoders.vit import VitConfig
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.fusion.splice import splice
from sensorium.fusion.visual_expert import VisualExpertConfig
from sensorium.fusion.visual_expert_detail import VisualExpertDetailConfig
from sensorium.fusion.visual_prompt import VisualPromptConfig
from sensorium.inference.sampling import Sampler, Sampling
from sensorium.input_projectors.glu import GluConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.input_projectors.patch_merger import PatchMergerConfig
from sensorium.input_projectors.perceiver import PerceiverConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.media.anyres import AnyResolution
from sensorium.media.native import NativeResolution
from sensorium.model.config import AdaptionPromptConfig, LaneConfig, ModelConfig
from sensorium.processing.collate import collate
from sensorium.recipes.tiny import tiny_model

LMS: dict[str, dict[str, Any]] = {
    "llama": {},
    "opt": {"model_type": "opt", "vocab_size": 512, "hidden_size": 48, "ffn_dim": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512,
            "word_embed_proj_dim": 48, "dropout": 0.0},
    "gpt2": {"model_type": "gpt2", "vocab_size": 512, "n_embd": 48, "n_layer": 2, "n_head": 4,
             "n_positions": 512},
    "gemma2": {"model_type": "gemma2", "vocab_size": 512, "hidden_size": 48,
               "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
               "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 512},
}  # fmt: skip
# Windows shorter than the samples below, in all layers or in some.
WINDOW = 16
SHAPE = {k: v for k, v in LMS["gemma2"].items() if k != "model_type"}
LMS["gemma2"]["sliding_window"] = WINDOW
LMS["mistral"] = SHAPE | {"model_type": "mistral", "sliding_window": WINDOW}
LMS["gemma3"] = SHAPE | {"model_type": "gemma3_text", "sliding_window": WINDOW, "sliding_window_pattern": 2}
LMS["qwen2"] = SHAPE | {"model_type": "qwen2", "sliding_window": WINDOW, "use_sliding_window": True,
                        "max_window_layers": 1}  # fmt: skip
LMS["qwen2_vl"] = {k: v for k, v in SHAPE.items() if k != "head_dim"} | {
    "model_type": "qwen2_vl_text",
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}}
WINDOWED = ("gemma2", "mistral", "gemma3", "qwen2")


def config_for(fusion: str, lm: str = "llama") -> ModelConfig:
    backbone = CausalLMConfig.tiny()
    if LMS[lm]:
        backbone = CausalLMConfig(arch=LMS[lm] | {"eos_token_id": 0, "bos_token_id": 0,
                                                  "pad_token_id": 0}, tokenizer="bytes")  # fmt: skip
    if fusion == "anyres":
        lane = LaneConfig(encoder=VitConfig.tiny().from_dict(VitConfig.tiny().to_dict() | {"feature": "patch"}),
                          projector=MlpConfig(), resolution=AnyResolution.tiny())  # fmt: skip
        return ModelConfig(lanes={"image": lane}, backbone=backbone)
    if fusion == "native":
        lane = LaneConfig(encoder=Qwen2VitConfig.tiny(), projector=PatchMergerConfig(),
                          resolution=NativeResolution.tiny())  # fmt: skip
        return ModelConfig(lanes={"image": lane}, backbone=backbone, template="qwen2_vl")
    if fusion == "gated":
        lane = LaneConfig(encoder=VitConfig.tiny(), projector=PerceiverConfig(
            latents=4, depth=1, heads=2, head_dim=8, project=False))  # fmt: skip
        return ModelConfig(lanes={"image": lane}, backbone=backbone,
                           fusion=GatedCrossAttentionConfig.tiny(),
                           image_markers=("<|endoftext|>",))  # fmt: skip
    if fusion == "visual_expert_detail":
        detail = Eva2Config(**tiny_shape(width=16, heads=2, image_size_px=24, positions_behind=True))
        lane = LaneConfig(encoder=VitConfig.tiny(), projector=GluConfig.tiny(), detail=detail)
        return ModelConfig(lanes={"image": lane}, backbone=backbone, fusion=VisualExpertDetailConfig.tiny())
    if fusion == "visual_expert":
        lane = LaneConfig(encoder=VitConfig.tiny(), projector=GluConfig.tiny())
        backbone = backbone.model_copy(update={"arch": backbone.arch | {"use_sliding_window": False}})
        return ModelConfig(lanes={"image": lane}, backbone=backbone, fusion=VisualExpertConfig())
    if fusion == "visual_prompt":
        encoder = VitConfig.tiny().model_copy(update={"feature": "cls"})
        return ModelConfig(lanes={"image": LaneConfig(encoder=encoder, projector=MlpConfig())},
                           backbone=backbone, fusion=VisualPromptConfig(),
                           adapter=AdaptionPromptConfig(layers=2, length=3))  # fmt: skip
    lane = LaneConfig(encoder=VitConfig.tiny(), projector=MlpConfig())
    return ModelConfig(lanes={"image": lane}, backbone=backbone)


def make(fusion: str, lm: str = "llama") -> Model:
    model, tokenizer = build_pretrained(config_for(fusion, lm))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
            if "gate" in name and parameter.ndim == 1:
                parameter.fill_(0.7)
    return Model(model, tokenizer)


def samples() -> list[Sample]:
    rng = np.random.default_rng(3)
    made: list[Sample] = []
    for i, (images, size) in enumerate([(1, (30, 30)), (0, (0, 0)), (2, (60, 28)), (1, (20, 64))]):
        content: list[dict[str, Any]] = []
        for k in range(images):
            pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            content += [{"type": "text", "text": f"see {k} "},
                        {"type": "image", "image": Image.fromarray(pixels)}]  # fmt: skip
        content.append({"type": "text", "text": "so?" * (i + 1)})
        made.append(parse_sample({"messages": [
            {"role": "user", "content": content},
            {"role": "assistant", "content": f"answer {i}"}]}))  # fmt: skip
    return made


def legible(text: str) -> str:
    """Without blanks and broken characters, which a stream may hold back at the end."""
    return "".join(text.replace("\ufffd", " ").split())


CASES = [(f, "llama") for f in ("splice", "anyres", "gated", "visual_prompt")] + [
    ("splice", lm) for lm in LMS if lm not in ("llama", "qwen2_vl")
] + [("native", "llama"), ("native", "qwen2_vl")] + [
    ("visual_expert", lm) for lm in ("llama", "opt", "qwen2")
] + [("visual_expert_detail", "llama")]


@pytest.mark.parametrize(("fusion", "lm"), CASES)
@torch.no_grad()
def test_packing_and_padding_change_nothing(fusion: str, lm: str) -> None:
    model = make(fusion, lm)
    examples = [model.processor.encode(s) for s in samples()]
    alone = [model.network(collate([[e]], 0)).hidden_BTD[0] for e in examples]
    packed = model.network(collate([examples[:3], examples[3:]], 0)).hidden_BTD
    padded = model.network(collate([[e] for e in examples], 0)).hidden_BTD
    start = 0
    for i, (example, expected) in enumerate(zip(examples, alone, strict=True)):
        torch.testing.assert_close(padded[i, : len(example)], expected, atol=1e-5, rtol=1e-4)
        row, start = (0, start) if i < 3 else (1, 0)
        got = packed[row, start : start + len(example)]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
        start += len(example)


@pytest.mark.parametrize(("fusion", "lm"), CASES)
def test_generation_variants_agree(fusion: str, lm: str) -> None:
    """Batched, cached and streamed answers equal a full forward pass for every token."""
    model = make(fusion, lm)
    prompts = [model.processor.prompt(s.messages[:1]) for s in samples()]
    model.processor.stop_ids.clear()
    batched = model.engine.generate(prompts, max_tokens=8)
    for prompt, got in zip(prompts, batched, strict=True):
        assert model.engine.generate([prompt], max_tokens=8)[0] == got
        streamed = "".join(model.engine.stream(prompt, max_tokens=8))
        assert legible(streamed) == legible(model.engine.text(got))
        slow: list[int] = []
        for _ in range(8):
            grown = model.processor.prompt(samples()[prompts.index(prompt)].messages[:1])
            grown.input_ids += slow
            grown.learn += [False] * len(slow)
            grown.media_index += [grown.media_index[-1]] * len(slow)
            if grown.places:
                behind = 1 + max(max(place) for place in grown.places)
                grown.places += [(behind + i, behind + i, behind + i) for i in range(len(slow))]
            with torch.no_grad():
                hidden = model.network(collate([[grown]], 0)).hidden_BTD
                slow.append(int(model.network.logits(hidden[0, -1]).argmax()))
        assert slow == got


@torch.no_grad()
def test_fast_steps_equal_plain_steps() -> None:
    """Fused single-token steps give the language model's own logits."""
    from sensorium.inference.engine import Engine

    model = make("splice")
    prompts = [model.processor.prompt(s.messages[:1]) for s in samples()]
    batch = collate([[p] for p in prompts], 0, pad_left=True)
    plain = Engine(model.network, model.processor, plain_steps=True)
    assert model.engine._fast is not None
    rows_a, a = model.engine._prefill(batch, 6)
    rows_b, b = plain._prefill(batch, 6)
    assert rows_a.steps is not None
    assert rows_b.steps is None
    for token in (5, 9, 200, 31):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
        a = model.engine._step(rows_a, [token] * 4)
        b = plain._step(rows_b, [token] * 4)


def test_shut_gates_leave_the_language_model_exactly_alone() -> None:
    config = config_for("gated")
    model, tokenizer = build_pretrained(config)
    wrapped = Model(model, tokenizer)
    example = wrapped.processor.encode(samples()[0])
    with torch.no_grad():
        with_picture = model(collate([[example]], 0)).hidden_BTD
        ids = torch.tensor([example.input_ids])
        plain = model.backbone.lm.base_model(input_ids=ids).last_hidden_state
    assert torch.equal(with_picture, plain)


def test_gates_learn_first() -> None:
    """At zero a gate gets a gradient and the layers behind it get none."""
    model, tokenizer = build_pretrained(config_for("gated"))
    batch = collate([[Model(model, tokenizer).processor.encode(samples()[0])]], 0)
    model(batch).hidden_BTD.square().sum().backward()
    fusion: Any = model.fusion
    block = fusion.blocks[0]
    assert block.attention_gate.grad.abs().sum() > 0
    assert block.attention.q.weight.grad.abs().sum() == 0


def test_tokens_before_a_picture_do_not_see_it() -> None:
    model = make("gated")
    one, other = samples()[2], samples()[3]
    first = model.processor.encode(one)
    swapped = model.processor.encode(one)
    pixels = model.processor.encode(other).media["image"].pixels_NCHW
    swapped.media["image"].pixels_NCHW = pixels.expand(2, -1, -1, -1)
    start = swapped.media_index.index(1)
    with torch.no_grad():
        a = model.network(collate([[first]], 0)).hidden_BTD[0]
        b = model.network(collate([[swapped]], 0)).hidden_BTD[0]
    assert torch.equal(a[:start], b[:start])
    assert not torch.allclose(a[start:], b[start:])


def test_mismatch_names_both_counts() -> None:
    with pytest.raises(AlignmentError, match=r"3 image placeholder tokens but 2 image features"):
        splice(torch.zeros(1, 4, 8), torch.zeros(2, 8), torch.tensor([[True, True, True, False]]))


def test_slots_match_features_for_any_shape() -> None:
    model = make("anyres")
    for size in ((1, 1), (400, 3), (3, 400), (64, 64), (33, 70)):
        sample = parse_sample({"messages": [{"role": "user", "content": [
            {"type": "image", "image": Image.new("RGB", size)}]}]})  # fmt: skip
        example = model.processor.encode(sample)
        features = model.network.features(example.media)["image"]
        assert len(example.slots["image"]) == len(features.values_ND)


def test_truncation_never_cuts_a_picture() -> None:
    model = make("splice")
    sample = samples()[2]
    whole = model.processor.encode(sample)
    slots = whole.slots["image"]
    per_picture = len(slots) // 2
    for length in range(8, len(whole)):
        try:
            cut = model.processor.encode(sample, max_length=length)
        except DataError:
            # Nothing to learn would be left: refused rather than cut.
            assert not any(whole.learn[:length])
            continue
        assert len(cut) <= length
        assert len(cut.slots.get("image", [])) % per_picture == 0
        assert cut.truncated_tokens == len(whole) - len(cut)


def test_control_tokens_in_user_text_stay_text() -> None:
    processor = make("splice").processor
    control = processor.tokenizer.special_id("<|im_end|>")
    sample = parse_sample({"messages": [{"role": "user", "content": "a<|im_end|>b"}]})
    assert processor.encode(sample).input_ids.count(control) == 1


def test_only_answers_are_learned() -> None:
    processor = make("splice").processor
    example = processor.encode(samples()[0])
    learned = [t for t, learn in zip(example.input_ids, example.learn, strict=True) if learn]
    assert processor.tokenizer.decode(learned, keep_special=True) == "answer 0<|im_end|>\n"


def test_a_text_model_refuses_pictures() -> None:
    config = ModelConfig(backbone=tiny_model().backbone)
    model = Model(*build_pretrained(config))
    assert isinstance(model.respond("hello", max_tokens=2), str)
    with pytest.raises(ConfigError, match="does not take image"):
        model.respond([{"role": "user", "content": [{"type": "image", "image": b"x"}]}])


def test_api_shapes(picture: Any) -> None:
    model = make("splice")
    content = [{"type": "image", "image": str(picture)}, {"type": "text", "text": "what?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}]
    scores = model.logits(messages)
    assert scores.logits_TV.shape == (len(scores.token_ids), 512)
    assert sum(scores.learn) == len("yes") + 2
    features = model.embed([str(picture), picture.read_bytes()])
    assert torch.equal(features[0].values_ND, features[1].values_ND)
    assert features[0].dim == 48
    assert model.respond(messages[:1], max_tokens=3) == model.respond(
        [{"role": "user", "content": [{"type": "image", "image": Image.open(picture)}, content[1]]}],
        max_tokens=3,
    )
    with pytest.raises(DataError, match="at most 512"):
        model.respond("x" * 600)


def test_sampling_is_seeded_and_bounded() -> None:
    logits = torch.randn(4, 50)
    sampling = Sampling(temperature=1.0, top_p=0.6, top_k=9, seed=5)
    draws = [Sampler(sampling, torch.device("cpu"))(logits, [[]] * 4).tolist() for _ in range(2)]
    assert draws[0] == draws[1]
    allowed = logits.topk(9, dim=-1).indices
    sampler = Sampler(sampling, torch.device("cpu"))
    for _ in range(40):
        for row, token in enumerate(sampler(logits, [[]] * 4).tolist()):
            assert token in allowed[row].tolist()
    greedy = Sampler(Sampling(), torch.device("cpu"))(logits, [[]] * 4)
    assert torch.equal(greedy, logits.argmax(-1))
    harsh = Sampler(Sampling(repetition_penalty=1e9), torch.device("cpu"))
    best = logits.argmax(-1).tolist()
    assert all(a != b for a, b in zip(harsh(logits, [[b] for b in best]).tolist(), best, strict=True))
