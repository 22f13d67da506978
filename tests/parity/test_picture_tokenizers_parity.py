"""Do the published VQ models give the codes and pixels that transformers' own classes give, from files that these saved?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sensorium.core.batch import Grid
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.generators.image_words import chameleon_words, emu3_words
from sensorium.generators.tokenizer_files import open_tokenizer, read_tokenizer_config

VQ = {"base_channels": 32, "num_res_blocks": 1, "embed_dim": 4}
TEXT = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "vocab_size": 64}  # fmt: skip
WORDS = {"chameleon": {"<image>": 60, **{f"IMGIMG{'ABCDEFGHIJ'[i // 10]}{'ABCDEFGHIJ'[i % 10]}Z": 4 + (7 * i) % 24 for i in range(24)}},
         "emu3": {"<image>": 60, "<|extra_200|>": 61, **{f"<|visual token {i:06d}|>": 4 + (7 * i) % 24 for i in range(24)}}}  # fmt: skip


def whole_model(name: str) -> Any:
    """A random tiny checkpoint of transformers."""
    import transformers as hf

    torch.manual_seed(0)
    if name == "chameleon":
        vq = {**VQ, "num_embeddings": 24, "latent_channels": 8, "channel_multiplier": [1, 1, 2], "resolution": 16}
        model = hf.ChameleonForConditionalGeneration(hf.ChameleonConfig(**TEXT, vq_config=vq, vocabulary_map=WORDS[name]))
    elif name == "emu3":
        vq = {**VQ, "codebook_size": 24, "channel_multiplier": [1, 2], "attn_resolutions": [1], "hidden_size": 64}
        model = hf.Emu3ForConditionalGeneration(hf.Emu3Config(vq_config=vq, text_config={**TEXT, "pad_token_id": 0}, vocabulary_map=WORDS[name]))
    else:
        vq = {**VQ, "num_embeddings": 24, "latent_channels": 8, "channel_multiplier": [1, 1, 2], "projection_dim": 32,
              "image_token_embed_dim": 32}  # fmt: skip
        vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 4,
                  "projection_dim": 32}  # fmt: skip
        model = hf.JanusForConditionalGeneration(hf.JanusConfig(vq_config=vq, vision_config=vision, text_config=TEXT, image_token_id=3))
    vqmodel: Any = model.model.vqmodel
    with torch.no_grad():
        for parameter in vqmodel.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def reference_ids(name: str, vqmodel: Any, values: Tensor) -> Tensor:
    sizes = (torch.tensor([[16, 16]] * len(values)),) if name == "emu3" else ()
    tokens = vqmodel.encode(values, *sizes).image_tokens
    return (torch.stack(tokens) if name == "emu3" else tokens).reshape(len(values), -1)


@pytest.fixture(scope="module", params=["chameleon", "emu3", "janus"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    model, folder = whole_model(request.param), tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return request.param, model, folder


def pixels_of(count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_codes_are_the_references(case: tuple[str, Any, Path], record: Callable[..., None]) -> None:
    name, model, folder = case
    ours: Any = open_tokenizer(folder)
    pixels = pixels_of()
    expected = reference_ids(name, model.model.vqmodel, pixels.float() / 127.5 - 1)
    assert torch.equal(ours.encode(pixels), expected)
    assert len(expected.unique()) > 2
    record(f"{name}-draws", "codes")
    config = read_tokenizer_config(folder)
    assert (config.size_px if name != "emu3" else 16, config.codes) == (16, 24)


@torch.no_grad()
def test_pixels_are_the_references(case: tuple[str, Any, Path], record: Callable[..., None]) -> None:
    name, model, folder = case
    if name == "chameleon":
        pytest.skip("transformers has no decoder of Chameleon; see the tests of it below")
    ours: Any = open_tokenizer(folder)
    ids, grid = torch.randint(0, 24, (3, 16 if name == "janus" else 64)), Grid(4, 4) if name == "janus" else Grid(8, 8)
    expected = model.model.vqmodel.decode(ids if name == "janus" else ids.view(3, 8, 8))
    got = ours.decode_values(ids, grid)
    record(f"{name}-draws", "values", ours=got, theirs=expected)
    shown, wanted = ours.decode(ids, grid), as_bytes(expected)
    assert torch.equal(shown, wanted)
    record(f"{name}-draws", "pictures", ours=shown, theirs=wanted)


def as_bytes(values: Tensor) -> Tensor:
    return ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def test_the_vq_model_alone_in_a_folder(case: tuple[str, Any, Path], tmp_path: Path) -> None:
    name, model, _ = case
    model.model.vqmodel.save_pretrained(tmp_path)
    ours: Any = open_tokenizer(tmp_path)
    pixels = pixels_of()
    assert torch.equal(ours.encode(pixels), reference_ids(name, model.model.vqmodel, pixels.float() / 127.5 - 1))


@torch.no_grad()
def test_scales_of_the_preprocessor(case: tuple[str, Any, Path], tmp_path: Path) -> None:
    name, model, _ = case
    model.model.vqmodel.save_pretrained(tmp_path)
    says = {"rescale_factor": 0.0078, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(says))
    ours: Any = open_tokenizer(tmp_path)
    values = pixels_of().float() * 0.0078 - 1
    torch.testing.assert_close(ours.to_values(pixels_of()), values)
    assert torch.equal(ours.encode(pixels_of()), reference_ids(name, model.model.vqmodel, values))


@torch.no_grad()
def test_chameleons_decoder_equals_januses_without_its_attention(tmp_path: Path, record: Callable[..., None]) -> None:
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAEDecoder

    model = whole_model("chameleon")
    model.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="no decoder"):
        open_tokenizer(tmp_path).decode(torch.zeros(1, 16, dtype=torch.long))
    sizes = JanusVQVAEConfig(base_channels=32, num_res_blocks=1, latent_channels=8, channel_multiplier=[1, 1, 2])
    reference: Any = JanusVQVAEDecoder(sizes).eval()
    reference.up[0].attn = torch.nn.ModuleList()
    tensors = load_file(tmp_path / "model.safetensors")
    for key, value in reference.state_dict().items():
        words = key.split(".")
        if words[0] == "up":
            # The files count levels from the finest, Janus' class from the coarsest.
            words[1] = str(2 - int(words[1]))
        tensors[f"model.vqmodel.decoder.{'.'.join(words)}"] = value
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    ours: Any = open_tokenizer(tmp_path)
    ids = torch.randint(0, 24, (2, 16))
    vqmodel = model.model.vqmodel
    codes = vqmodel.quantize.embedding(ids).transpose(1, 2).unflatten(2, (4, 4))
    expected = reference(vqmodel.post_quant_conv(codes))
    record("chameleon-draws", "values", ours=ours.decode_values(ids, Grid(4, 4)), theirs=expected)
    record("chameleon-draws", "pictures", ours=ours.decode(ids), theirs=as_bytes(expected))


@pytest.mark.parametrize(("name", "words"), [("chameleon", chameleon_words), ("emu3", emu3_words)])
def test_codes_have_the_references_words(name: str, words: Any) -> None:
    mapping = whole_model(name).model.vocabulary_mapping
    ids = torch.arange(24).view(2, 12)
    expected = mapping.convert_img2bpe(ids)
    assert torch.tensor(words(WORDS[name]))[ids].tolist() == expected[:, :12].tolist()
    gap = {word: id for word, id in WORDS[name].items() if id != WORDS[name]["IMGIMGAFZ" if name == "chameleon" else "<|visual token 000005|>"]}
    with pytest.raises(ConfigError, match="the first is 5"):
        words(gap)


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="llama"):
        open_tokenizer(tmp_path)
