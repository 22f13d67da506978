"""A config is refused if and only if a tiny model of it cannot be built, run on pictures of several shapes and see them.

Every encoder with every projector and every resolution, by one LLM; every LLM with every fusion and adapter; the
rest of the product by lot. Half of each, by lot, unless `SENSORIUM_PAIRS=full`.
"""

from __future__ import annotations

import itertools
import os
import random
from typing import Any

import pytest
import torch
from PIL import Image

from sensorium.backbones import BACKBONES
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError
from sensorium.core.parts import BackboneConfig
from sensorium.core.sample import Sample, parse_sample
from sensorium.encoders import ENCODERS
from sensorium.fusion import FUSIONS
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.media import RESOLUTIONS
from sensorium.model.check import check_model
from sensorium.model.config import ADAPTERS, LaneConfig, ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.text.byte_tokenizer import byte_tokenizer

SIZES = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LLMS: dict[str, dict[str, Any]] = {
    "qwen2": SIZES | {"num_key_value_heads": 2},
    "mistral": SIZES | {"num_key_value_heads": 2},
    "gpt_neox": SIZES,
    "mpt": {"d_model": 48, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
    "gemma2": SIZES | {"num_key_value_heads": 2, "head_dim": 12},
    "mamba": {"hidden_size": 48, "num_hidden_layers": 2, "state_size": 4},
    "qwen2_vl_text": SIZES | {"num_key_value_heads": 2, "rope_parameters": {
        "rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0}},
}  # fmt: skip
IDS = {"vocab_size": 512, "max_position_embeddings": 256, "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
COMPARE = ("apart", "match", "cross_attention", "query_match")
LANE = ("clip", "mlp", "fixed")


def backbone(name: str) -> BackboneConfig:
    """A kind of backbone, or a causal LM of a model type, tiny."""
    if name in BACKBONES:
        return BACKBONES.find(name).tiny()
    return CausalLMConfig(arch=IDS | LLMS[name] | {"model_type": name}, tokenizer="bytes")


def combinations() -> dict[str, list[tuple[str, ...]]]:
    """(encoder, projector, resolution, backbone, fusion, adapter)."""
    lanes = itertools.product(ENCODERS, INPUT_PROJECTORS, RESOLUTIONS)
    inside = list(itertools.product([*BACKBONES, *LLMS], FUSIONS, ["none", *ADAPTERS]))
    # All of the product would take an hour.
    lot = random.Random(0)
    every = {
        "lanes": [(*lane, "causal_lm", "splice", "none") for lane in lanes],
        "inside": [(*LANE, *rest) for rest in inside],
        "lot": [(lot.choice([*ENCODERS]), lot.choice([*INPUT_PROJECTORS]), lot.choice([*RESOLUTIONS]),
                 *lot.choice(inside)) for _ in range(200)],
    }  # fmt: skip
    if os.environ.get("SENSORIUM_PAIRS") == "full":
        return every
    return {group: lot.sample(all_of, len(all_of) // 2) for group, all_of in every.items()}


def samples(color: tuple[int, int, int]) -> list[Sample]:
    return [parse_sample({"messages": [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", size, color)},
                                     {"type": "text", "text": "what"}]},
        {"role": "assistant", "content": "red"}]}) for size in ((40, 56), (90, 24))]  # fmt: skip


def model_of(combination: tuple[str, ...]) -> ModelConfig:
    """Tiny parts; where fusions want something of the lane, it is there, so that more than the lack of it is tried."""
    encoder, projector, resolution, llm, fusion, adapter = combination
    values: dict[str, Any] = {
        "encoder": ENCODERS.find(encoder).tiny().to_dict(),
        "projector": INPUT_PROJECTORS.find(projector).tiny().to_dict(),
        "resolution": RESOLUTIONS.find(resolution).tiny().to_dict(),
    }
    inside = FUSIONS.find(fusion).tiny().to_dict()
    if fusion == "visual_expert_detail":
        values["detail"] = ENCODERS.find("vit").tiny().to_dict()
    if "ends" in inside:
        inside["ends"] = bool(values["projector"].get("ends", False))
    if "joint" in inside:
        inside["joint"] = getattr(backbone(llm), "joint", inside["joint"])
    if fusion in ("apart", "visual_prompt") and encoder == "clip":
        values["encoder"] |= {"feature": "pooled", "select_layer": None}
    return ModelConfig(
        lanes={"image": LaneConfig.from_dict(values)}, backbone=backbone(llm),
        fusion=FUSIONS.find(fusion).from_dict(inside), template="caption",
        adapter=None if adapter == "none" else ADAPTERS.find(adapter).tiny(),
    )  # fmt: skip


def runs(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> str:
    """Build and run without asking `check_model` first; what went wrong, if anything."""
    with monkeypatch.context() as patch:
        patch.setattr("sensorium.model.multimodal.check_model", lambda _: None)
        try:
            torch.manual_seed(0)
            model, tokenizer = MultimodalModel(config), byte_tokenizer()
            for parameter in model.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)  # Gates that begin closed are open.
            processor = Processor(config, tokenizer)
            seen: list[torch.Tensor] = []
            for color in ((200, 30, 10), (20, 130, 240)):
                batch = collate([[processor.encode(sample)] for sample in samples(color)], tokenizer.pad_id)
                with torch.no_grad():
                    seen.append(model.eval()(batch).hidden_BTD)
            assert torch.isfinite(seen[0]).all()
            # Towers are compared outside of the model.
            assert config.text_frame is not None or not torch.equal(*seen), "the picture does not reach the text"
        except Exception as error:  # Whatever it is, the model does not run.
            return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("group", combinations())
def test_what_is_refused_cannot_run_and_what_is_not_runs(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: list[str] = []
    count = {"runs": 0, "refused": 0}
    for combination in combinations()[group]:
        try:
            config = model_of(combination)
        except ConfigError:
            count["refused"] += 1  # A lane that cannot even be written down.
            continue
        refused = ""
        try:
            check_model(config)
        except ConfigError as error:
            refused = str(error)
        fault = runs(config, monkeypatch)
        count["refused" if refused else "runs"] += 1
        # Fusions that compare are refused for what they could not answer, which running does not show.
        if (fault and not refused) or (refused and not fault and combination[4] not in COMPARE):
            wrong.append(f"{' '.join(combination)}: refused by {refused!r}, running by {fault!r}")
    assert not wrong, "\n".join(wrong)
    assert min(count.values()) >= 5, count


@pytest.mark.parametrize(
    ("encoder", "projector", "resolution", "nearest"),
    [("clip", "mlp", "native", "resolution {kind: fixed}, or an encoder of kind qwen2_vit, qwen2_5_vit, rice_vit"),
     ("vit", "patch_merger", "fixed", "feature: patch with projector patch_merger"),
     ("clip", "perceiver", "anyres", "nearest for encoder clip: projector linear, mlp,")],
)  # fmt: skip
def test_the_nearest_pair_is_named_and_works(encoder: str, projector: str, resolution: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_model(model_of((encoder, projector, resolution, "causal_lm", "splice", "none")))
    assert nearest in str(refused.value)
    assert "perceiver" not in str(refused.value).partition("nearest")[2]
