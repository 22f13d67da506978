"""Written as GGUF: what reads it back has the same function; names and fields are llama.cpp's.

llama.cpp itself is no dependency. Run by hand against its release v0.5.0, a tiny language model gave our logits
to 3e-6 in f32, 5e-3 in f16 and 0.15 in q8_0 (of 3.5), our greedy text in all three, and equal tokens of all
three tokenizers; nano's, in f16, logits to 0.05 (of 36). Its features of a picture were ours to 0.013 (of 18.7) with the class token in front, as
its pull request 25844 puts it; as it is, they were those of a CLIP whose class token stands last, to 0.011.
SigLIP has no class token: its features were ours to 0.005 (of 9.7), those of the last layer, normed or not, and of the one in front.
With biases on queries, keys and values, as Qwen2 has them, logits were ours to 6e-6 (of 5.8), and the text was ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bpe import byte_level, sentence_piece
from gguf import GGUFReader, dequantize
from typer.testing import CliRunner

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.cli.main import app
from sensorium.core.errors import ConfigError
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.dinov2 import Dinov2Config
from sensorium.encoders.siglip import SiglipConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.gguf import convert_gguf
from sensorium.interop.gguf_export import export_gguf
from sensorium.interop.saved import save_model
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.jinja import as_jinja
from sensorium.text.templates import TEMPLATES
from sensorium.text.tokenizer import Tokenizer

ARCH: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 310, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "rope_theta": 50_000.0,
}  # fmt: skip
TOLERANCE = {"f32": 1e-5, "f16": 2e-2, "q8_0": 4e-1}
CLIP = ClipConfig.tiny()


def made(
    folder: Path, tokenizer: Tokenizer | None = None, lane: LaneConfig | None = None, **arch: Any
) -> MultimodalModel:
    """A random model, saved."""
    lane = lane or LaneConfig(encoder=CLIP, projector=MlpConfig())
    config = ModelConfig(lanes={"image": lane}, backbone=CausalLMConfig(arch=ARCH | arch), template="plain")
    model = MultimodalModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
    save_model(model, tokenizer or byte_level(), folder, learnt=set())
    return model


def fields(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


def tensors(file: Path) -> dict[str, torch.Tensor]:
    return {e.name: torch.from_numpy(np.array(dequantize(e.data, e.tensor_type))).float()
            for e in GGUFReader(file).tensors}  # fmt: skip


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    hidden = model(model.embed(ids), positions_BT=torch.arange(ids.shape[1]).expand(ids.shape))
    return model.logits(hidden)


@pytest.mark.parametrize("number", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("tie", [True, False])
def test_the_language_model_comes_back(number: Any, tie: bool, tmp_path: Path) -> None:
    """Through our own reader, and through transformers'."""
    from transformers import AutoModelForCausalLM

    model = made(tmp_path / "m", tie_word_embeddings=tie)
    names = export_gguf(tmp_path / "m", tmp_path / "out", number)
    assert names == [f"model-{number}.gguf", f"mmproj-{number}.gguf"]
    ids = torch.randint(0, 300, (2, 17))
    expected = logits(model.backbone, ids)
    convert_gguf(tmp_path / "out" / names[0], tmp_path / "hf")
    arch = json.loads((tmp_path / "hf" / "config.json").read_text())
    back = CausalLMConfig(arch=arch).build(tmp_path / "hf")
    torch.testing.assert_close(logits(back, ids), expected, atol=TOLERANCE[number], rtol=0)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file=names[0], dtype=torch.float32)
    torch.testing.assert_close(theirs.eval()(ids).logits, expected, atol=TOLERANCE[number], rtol=0)
    assert ("output.weight" in tensors(tmp_path / "out" / names[0])) is not tie


def test_qwen2_is_not_interleaved(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = made(tmp_path / "m", model_type="qwen2")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_proj.bias"):
                parameter.normal_(0, 0.5)
    save_model(model, byte_level(), tmp_path / "m", learnt=set())
    (name,) = export_gguf(tmp_path / "m", tmp_path / "out", "f32", llm_only=True)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file=name, dtype=torch.float32)
    ids = torch.randint(0, 300, (1, 9))
    torch.testing.assert_close(theirs.eval()(ids).logits, logits(model.backbone, ids), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("layer", "blocks"), [(None, 3), (-1, 3), (-2, 2)])
def test_siglip_has_no_class_token_and_perhaps_a_last_norm(layer: int | None, blocks: int, tmp_path: Path) -> None:
    encoder = SiglipConfig.tiny().model_copy(update={"select_layer": layer})
    model = made(tmp_path / "m", lane=LaneConfig(encoder=encoder, projector=MlpConfig()))
    export_gguf(tmp_path / "m", tmp_path / "out", "f32")
    file = tmp_path / "out" / "mmproj-f32.gguf"
    said, got, state = fields(file), tensors(file), model.state_dict()
    assert (said["clip.use_gelu"], said["clip.vision.block_count"], said["clip.vision.feature_layer"]) == (True, blocks, [blocks])
    assert said["clip.vision.attention.layer_norm_epsilon"] == pytest.approx(1e-6)
    assert torch.equal(got["v.patch_embd.bias"], state["encoders.image.tower.embeddings.patch_embedding.bias"])
    assert ("v.post_ln.weight" in got) is (layer is None)
    assert not any(name.startswith(("v.class_embd", "v.pre_ln", f"v.blk.{blocks}.", "v.head")) for name in got)


def test_the_chat_template_is_written_for_those_who_read_it(tmp_path: Path) -> None:
    """By transformers' own reader of such files, it asks as we ask."""
    from transformers import AutoTokenizer

    made(tmp_path / "m")
    export_gguf(tmp_path / "m", tmp_path / "out", "f16", llm_only=True)
    text = fields(tmp_path / "out" / "model-f16.gguf")["tokenizer.chat_template"]
    assert text == as_jinja(TEMPLATES["plain"])
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file="model-f16.gguf")
    got = theirs.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True)
    assert got == "User: hello\nAssistant:"


def test_tokens_come_back(tmp_path: Path) -> None:
    text = "hello the other hé 42<|im_end|>"
    for pre in ("gpt-2", "smollm"):
        tokenizer = byte_level(pre)
        made(tmp_path / pre, tokenizer)
        export_gguf(tmp_path / pre, tmp_path / f"{pre}-out", "f16")
        file = tmp_path / f"{pre}-out" / "model-f16.gguf"
        assert fields(file)["tokenizer.ggml.pre"] == pre
        convert_gguf(file, tmp_path / f"{pre}-hf")
        back = Tokenizer.load(tmp_path / f"{pre}-hf")
        assert back.encode(text) == tokenizer.encode(text)
        assert back.specials() == tokenizer.specials()


def test_sentence_piece_has_scores(tmp_path: Path) -> None:
    made(tmp_path / "m", sentence_piece(), vocab_size=320)
    export_gguf(tmp_path / "m", tmp_path / "out", "f16")
    said = fields(tmp_path / "out" / "model-f16.gguf")
    tokens, scores, types = (said[f"tokenizer.ggml.{n}"] for n in ("tokens", "scores", "token_type"))
    assert said["tokenizer.ggml.model"] == "llama"
    assert "tokenizer.ggml.merges" not in said
    assert (tokens[0], types[0], types[1], types[3], types[319]) == ("<unk>", 2, 3, 6, 5)
    # The earlier a merge, the better its token; letters are never made.
    by = dict(zip(tokens, scores, strict=True))
    assert by["▁t"] > by["he"] > by["▁the"] > by["hello"] > by["x"]


def test_tower_and_projector_lie_under_llama_cpps_names(tmp_path: Path) -> None:
    model = made(tmp_path / "m")
    export_gguf(tmp_path / "m", tmp_path / "out", "f32")
    file = tmp_path / "out" / "mmproj-f32.gguf"
    said, got, state = fields(file), tensors(file), model.state_dict()
    # Of three layers, -2 is what leaves the second.
    expected = {"general.architecture": "clip", "general.type": "mmproj", "clip.projector_type": "mlp",
                "clip.has_vision_encoder": True, "clip.use_gelu": False, "clip.vision.block_count": 2,
                "clip.vision.feature_layer": [2], "clip.vision.image_size": 32, "clip.vision.patch_size": 8,
                "clip.vision.attention.head_count": 4, "clip.vision.embedding_length": 32,
                "clip.vision.feed_forward_length": 48, "clip.vision.projection_dim": 64}  # fmt: skip
    assert {name: said[name] for name in expected} == expected
    assert said["clip.vision.image_mean"] == pytest.approx(CLIP.mean)
    eye = "encoders.image.tower."
    pairs = {"v.class_embd": f"{eye}embeddings.class_embedding", "v.pre_ln.bias": f"{eye}pre_layrnorm.bias",
             "v.patch_embd.weight": f"{eye}embeddings.patch_embedding.weight",
             "v.position_embd.weight": f"{eye}embeddings.position_embedding.weight",
             "v.blk.1.attn_out.weight": f"{eye}encoder.layers.1.self_attn.out_proj.weight",
             "v.blk.1.ffn_up.weight": f"{eye}encoder.layers.1.mlp.fc1.weight",
             "v.blk.0.ln2.weight": f"{eye}encoder.layers.0.layer_norm2.weight",
             "mm.0.weight": "projectors.image.layers.0.weight", "mm.2.bias": "projectors.image.layers.2.bias"}  # fmt: skip
    for name, ours in pairs.items():
        assert torch.equal(got[name].reshape(state[ours].shape), state[ours]), name
    assert not any(name.startswith(("v.blk.2.", "v.post_ln.")) for name in got)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"lane": LaneConfig(encoder=Dinov2Config.tiny(), projector=MlpConfig())}, "its tower is 'dinov2'"),
     ({"lane": LaneConfig(encoder=CLIP, projector=LinearConfig())}, "its projector is 'linear'"),
     ({"tokenizer": byte_tokenizer()}, "its tokenizer merges nothing"),
     ({"model_type": "gpt2", "n_embd": 64, "n_layer": 1, "n_head": 4}, "its language model is 'gpt2'"),
     ({"attention_bias": True}, "its language model has biases"),
     ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "its language model has stretched positions")],
)  # fmt: skip
def test_what_llama_cpp_lacks_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    made(tmp_path / "m", **change)
    with pytest.raises(ConfigError, match=said):
        export_gguf(tmp_path / "m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_export_on_the_command_line(tmp_path: Path) -> None:
    made(tmp_path / "m", lane=LaneConfig(encoder=Dinov2Config.tiny(), projector=MlpConfig()))
    words = ["export", str(tmp_path / "m"), str(tmp_path / "out"), "--to", "gguf", "--number", "q8_0"]
    result = CliRunner().invoke(app, words)
    assert "--llm-only" in str(result.exception)
    result = CliRunner().invoke(app, [*words, "--llm-only", "--json"])
    assert json.loads(result.output)["files"] == ["model-q8_0.gguf"], result.exception
    # A second time into the same folder is no mistake.
    assert CliRunner().invoke(app, [*words, "--llm-only"]).exit_code == 0
    for more, said in ((["--number", "q8"], "q8_0"), (["--half"], "--half goes with")):
        assert said in str(CliRunner().invoke(app, [*words, *more]).exception)
