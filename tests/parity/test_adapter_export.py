"""A low-rank adapter goes out merged, or alone for peft: the same function both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bpe import byte_level
from original_layouts import IMAGE
from test_originals import assert_equal_answers
from typer.testing import CliRunner

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.cli.main import app
from sensorium.core.errors import ConfigError
from sensorium.encoders.clip import ClipConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.adapter_export import export_adapter
from sensorium.interop.hf import export_hf
from sensorium.interop.saved import save_model
from sensorium.media.resolution import FixedResolution
from sensorium.model.adapter import inject_adapter
from sensorium.model.config import LaneConfig, LoraConfig, ModelConfig
from sensorium.model.multimodal import MultimodalModel

ARCH: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 299,
    "tie_word_embeddings": False,
}  # fmt: skip


def trained(folder: Path) -> MultimodalModel:
    """A LLaVA whose adapter has learnt something, saved; what is returned is not merged."""
    eye = ClipConfig(width=32, layers=3, heads=4, mlp_width=48, image_size_px=28, patch_size_px=14, select_layer=-2)
    lane = LaneConfig(encoder=eye, projector=MlpConfig(), resolution=FixedResolution(fit="crop"))
    lora = LoraConfig(rank=3, alpha=12.0, targets=("q_proj", "down_proj"))
    config = ModelConfig(lanes={"image": lane}, backbone=CausalLMConfig(arch=ARCH), adapter=lora, template="vicuna")
    model = MultimodalModel(config).eval()
    inject_adapter(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    learnt = {name for name, _ in model.named_parameters() if "lora_" in name}
    save_model(model.eval(), byte_level(), folder, learnt=learnt)
    return model


def test_merged_in_transformers_layout(tmp_path: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    model = trained(tmp_path / "m")
    export_hf(tmp_path / "m", tmp_path / "hf", "llava")
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf").eval()
    assert not any("lora" in name for name in theirs.state_dict())
    # The vocabulary's new `<image>`; these prompts are ids, and mark pictures by another.
    assert theirs.config.image_token_id == len(byte_level())
    theirs.config.image_token_id = IMAGE
    assert_equal_answers(model, theirs)


def test_alone_for_peft(tmp_path: Path) -> None:
    import peft
    from transformers import LlamaConfig, LlamaForCausalLM

    model = trained(tmp_path / "m")
    result = CliRunner().invoke(app, ["export", str(tmp_path / "m"), str(tmp_path / "a"), "--adapter-only", "--json"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["files"] == ["adapter_config.json", "adapter_model.safetensors"]
    base = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in ARCH.items() if k != "model_type"})).eval()
    own = {k.replace(".base_layer.", "."): v for k, v in model.backbone.lm.state_dict().items() if "lora_" not in k}
    base.load_state_dict(own)
    ids = torch.randint(0, 290, (1, 9))
    with torch.no_grad():
        plain = base(ids).logits
        adapted = peft.PeftModel.from_pretrained(base, str(tmp_path / "a")).eval()(ids).logits
        hidden = model.backbone(model.backbone.embed(ids), positions_BT=torch.arange(9)[None])
        mine = model.backbone.logits(hidden)
    torch.testing.assert_close(adapted, mine, atol=1e-5, rtol=1e-4)
    assert (adapted - plain).abs().max() > 0.1


def test_a_model_without_matrices_is_refused(tmp_path: Path) -> None:
    config = ModelConfig(backbone=CausalLMConfig(arch=ARCH))
    save_model(MultimodalModel(config), byte_level(), tmp_path / "m", learnt=set())
    with pytest.raises(ConfigError, match="adapter is none"):
        export_adapter(tmp_path / "m", tmp_path / "a")
