"""LLaVA-OneVision-1.5, which transformers does not have, against its parts there: MLCD's tower, the
merger's arithmetic, Qwen3. Names of tensors are those of the original's repository."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from anyres_cases import (
    PROMPTS,
    Prompt,
    assert_equal,
    encode,
    our_logits,
    our_processor,
)
from native_models import rice_names
from safetensors.torch import save_file

from sensorium.backbones.causal_lm import CausalLMConfig, transformers_config
from sensorium.core.batch import Example
from sensorium.encoders.pixels import Normalise
from sensorium.inference.engine import Engine
from sensorium.interop.families.llava_onevision_15 import LlavaOnevision15
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES
from sensorium.text.byte_tokenizer import byte_tokenizer

QWEN3 = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": None,
         "eos_token_id": None, "tie_word_embeddings": False}  # fmt: skip
VISION = {"depth": 3, "hidden_size": 32, "embed_dim": 32, "intermediate_size": 48, "num_heads": 4,
          "text_hidden_size": 32}  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """The original, put together from classes of transformers."""

    tower: Any
    merger: dict[str, torch.Tensor]
    lm: Any

    def logits(self, model: MultimodalModel, example: Example, more: list[int]) -> torch.Tensor:
        """Of a prompt and tokens behind it; each picture goes through the tower alone."""
        embeds = self.lm.get_input_embeddings()(torch.tensor(example.input_ids + more))
        if example.media:
            media = example.media["image"]
            assert media.patches is not None
            made: list[torch.Tensor] = []
            counts = [grid.tokens for grid in media.patches]
            for patches, grid in zip(media.pixels_NCHW.split(counts), media.patches, strict=True):
                cells = patches.view(grid.h, grid.w, 3, 14, 14).permute(2, 0, 3, 1, 4)
                picture = cells.reshape(1, 3, grid.h * 14, grid.w * 14)
                normalise = Normalise(model.config.lane("image").encoder.preprocess())
                features = self.tower(normalise(picture)).last_hidden_state[0, 1:]
                made.append(self.merge(features.view(grid.h // 2, 2, grid.w // 2, 2, -1)))
            embeds = embeds.index_put((torch.tensor(example.slots["image"]),), torch.cat(made))
        return self.lm(inputs_embeds=embeds[None]).logits[0]

    def merge(self, blocks: torch.Tensor) -> torch.Tensor:
        m, functional = self.merger, torch.nn.functional
        normed = functional.layer_norm(blocks, (32,), m["ln_q.weight"], m["ln_q.bias"], eps=1e-5)
        four = normed.transpose(1, 2).reshape(-1, 128)
        inner = functional.gelu(functional.linear(four, m["mlp.0.weight"], m["mlp.0.bias"]))
        return functional.linear(inner, m["mlp.2.weight"], m["mlp.2.bias"])


def checkpoint(folder: Path) -> Parts:
    from transformers import MLCDVisionConfig, MLCDVisionModel, Qwen3Config, Qwen3ForCausalLM

    tower = MLCDVisionModel(MLCDVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4
    )).eval()  # fmt: skip
    lm = Qwen3ForCausalLM(Qwen3Config(**QWEN3)).eval()
    with torch.no_grad():
        for name, parameter in [*tower.named_parameters(), *lm.named_parameters()]:
            if parameter.ndim > 1 or "bias" in name:
                parameter.normal_(0, 0.15)
    shapes = {"ln_q.weight": (32,), "ln_q.bias": (32,), "mlp.0.weight": (128, 128), "mlp.0.bias": (128,),
              "mlp.2.weight": (32, 128), "mlp.2.bias": (32,)}  # fmt: skip
    merger = {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}
    vision = {k.replace("patch_embed.", "patch_embed.proj."): v for k, v in rice_names(tower.state_dict()).items()}
    tensors = {f"visual.{k}": v for k, v in vision.items()}
    tensors |= {f"visual.merger.{k}": v for k, v in merger.items()}
    folder.mkdir()
    save_file(tensors | lm.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "llavaonevision1_5", "vision_config": VISION, "tie_word_embeddings": False,
              "text_config": QWEN3 | {"model_type": "LLaVAOneVision1_5_text"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return Parts(tower, merger, lm)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parts, MultimodalModel]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("onevision") / "hf"
    return checkpoint(folder), read_hf(folder)


@torch.no_grad()
def test_logits(pair: tuple[Parts, MultimodalModel]) -> None:
    """Alone, padded on either side, packed into one row; pictures first, last, side by side."""
    parts, ours = pair
    prompts: list[Prompt] = [p if (200, 3) not in p else ["a ", (28, 28), (57, 55), "?"] for p in PROMPTS]
    examples = [encode(ours.config, prompt) for prompt in prompts]
    expected = [parts.logits(ours, example, []) for example in examples]
    for left in (False, True):
        for row, want in zip(our_logits(ours, [[e] for e in examples], pad_left=left), expected, strict=True):
            assert_equal(row[-len(want) :] if left else row[: len(want)], want)
    packed = our_logits(ours, [examples])[0].split([len(e) for e in examples])
    for example, got, want in zip(examples, packed, expected, strict=True):
        assert_equal(got, want)
        assert_equal(our_logits(ours, [[example]])[0], want)


@torch.no_grad()
def test_greedy_text(pair: tuple[Parts, MultimodalModel]) -> None:
    parts, ours = pair
    examples = [encode(ours.config, prompt) for prompt in PROMPTS[:3]]
    engine = Engine(ours, our_processor(ours.config))
    engine.processor.stop_ids = set()
    for example, got in zip(examples, engine.generate(examples, max_tokens=8), strict=True):
        made: list[int] = []
        for _ in range(8):
            made.append(int(parts.logits(ours, example, made)[-1].argmax()))
        assert got == made


def test_the_way_back(tmp_path: Path) -> None:
    """As it came, and without the foreign config that an imported model keeps."""
    checkpoint(tmp_path / "hf")
    byte_tokenizer().save(tmp_path / "hf")
    ours = import_hf(tmp_path / "hf", tmp_path / "ours")
    export_hf(tmp_path / "ours", tmp_path / "back")
    assert same_tensors(tmp_path / "hf", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (tmp_path / "hf" / "config.json").read_text()
    )
    (tmp_path / "ours" / "foreign.json").unlink()
    export_hf(tmp_path / "ours", tmp_path / "again", "llavaonevision1_5")
    assert same_tensors(tmp_path / "hf", tmp_path / "again")
    assert read_hf(tmp_path / "again").config == ours.config


def test_the_recipe_is_what_a_published_config_means() -> None:
    """The original's class defaults are the 4B."""
    mine = RECIPES.find("llava-onevision-1.5")().model
    text = {"model_type": "LLaVAOneVision1_5_text", "vocab_size": 151936, "hidden_size": 2560,
            "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
            "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262144,
            "rms_norm_eps": 1e-6, "rope_theta": 5000000.0, "bos_token_id": 151643,
            "eos_token_id": 151645, "tie_word_embeddings": False}  # fmt: skip
    theirs = LlavaOnevision15().to_ours({"model_type": "llavaonevision1_5", "vision_config": {}, "text_config": text})
    one, two = mine.lane("image"), theirs.lane("image")
    assert one.encoder == two.encoder
    assert one.projector == two.projector
    assert isinstance(mine.backbone, CausalLMConfig)
    assert isinstance(theirs.backbone, CausalLMConfig)
    got, expected = transformers_config(mine.backbone.arch), transformers_config(theirs.backbone.arch)
    assert got.to_dict() == expected.to_dict()
    assert mine.template == theirs.template
