"""Does every output projector keep the promises of its kind, and compute what its original does?

The originals' classes need packages and weights that are not here, so each is written a second time below, from the
structure of the authors' code: their modules, their names, torch's own transformer.

Shape legend: B items, K signal tokens, D LLM width, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sensorium.core.errors import ConfigError
from sensorium.core.hands import ConditionShape, OutputProjectorConfig, Space
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.nn.condition_loss import CONDITION_LOSSES
from sensorium.nn.contrastive import softmax_contrast
from sensorium.output_projectors import OUTPUT_PROJECTORS
from sensorium.output_projectors.encoder_decoder import EncoderDecoderConfig
from sensorium.output_projectors.mapper import MapperConfig
from sensorium.output_projectors.mask_prompt import MaskPromptConfig
from sensorium.output_projectors.regression import RegressionConfig
from sensorium.output_projectors.retrieval import RetrievalConfig

B, K, D, C = 3, 4, 24, 16
TINY = {name: OUTPUT_PROJECTORS.find(name).tiny() for name in OUTPUT_PROJECTORS}
TINY["regression"] = RegressionConfig(space="encoder")
TINY["mapper, linear, fewer out"] = MapperConfig(mode="linear")
LENGTHS = {"mapper": 6, "encoder_decoder": 6, "regression": K, "retrieval": 1, "mask_prompt": K}
SIGNALS = {"regression": 2}
every = pytest.mark.parametrize("name", TINY)


def shape_of(name: str) -> ConditionShape:
    return ConditionShape(LENGTHS.get(name, 3), C)


def build(name: str) -> nn.Module:
    return TINY[name].build(D, SIGNALS.get(name, K), shape_of(name))


@pytest.mark.parametrize("name", OUTPUT_PROJECTORS)
def test_config_round_trips(name: str) -> None:
    config: OutputProjectorConfig = TINY[name]
    assert config.kind == name
    assert type(config).from_dict(config.to_dict()) == config


@every
def test_shapes_types_and_gradients(name: str) -> None:
    module, shape = build(name), shape_of(name)
    made_BLC = module(torch.randn(B, K, D))
    assert made_BLC.shape == (B, shape.length, shape.width)
    made_BLC.square().sum().backward()
    if name == "retrieval":  # Pictures are the other half.
        module.scores(module.pictures(torch.randn(2, 12)), made_BLC[:, 0].detach()).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert module.to(torch.float64)(torch.randn(1, K, D, dtype=torch.float64)).dtype == torch.float64


@every
def test_alone_and_together_twice_and_from_a_file(name: str, tmp_path: Path) -> None:
    module = build(name).eval()
    hidden_BKD = torch.randn(B, K, D)
    with torch.no_grad():
        together = module(hidden_BKD)
        assert torch.equal(together, module(hidden_BKD))
        for n in range(B):
            torch.testing.assert_close(module(hidden_BKD[n : n + 1]), together[n : n + 1], atol=1e-5, rtol=1e-4)
        save_file(module.state_dict(), tmp_path / "projector.safetensors")
        again = build(name).eval()
        assert not torch.equal(again(hidden_BKD), together)
        again.load_state_dict(load_file(tmp_path / "projector.safetensors"))
        assert torch.equal(again(hidden_BKD), together)


@every
@pytest.mark.parametrize("loss", CONDITION_LOSSES)
def test_learns(name: str, loss: str) -> None:
    module, shape = build(name), shape_of(name)
    hidden_BKD, wanted_BLC = torch.randn(B, K, D), torch.randn(B, shape.length, shape.width)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-2)
    losses: list[float] = []
    for _ in range(15):
        value = CONDITION_LOSSES[loss](module(hidden_BKD), wanted_BLC).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.85 * losses[0], losses


@pytest.mark.parametrize(
    ("config", "signals", "shape"),
    [
        (MapperConfig(heads=3), 4, ConditionShape(6, 16)),
        (MapperConfig(mode="linear"), 5, ConditionShape(7, 16)),
        (EncoderDecoderConfig(), 4, ConditionShape(6, 12)),
        (RegressionConfig(), 4, ConditionShape(4, D)),
        (RegressionConfig(), 2, ConditionShape(4, 16)),
        (RetrievalConfig(), 1, ConditionShape(2, 16)),
        (MaskPromptConfig(), 2, ConditionShape(1, 16)),
    ],
    ids=lambda v: getattr(v, "kind", ""),
)
def test_what_cannot_be_is_refused(config: OutputProjectorConfig, signals: int, shape: ConditionShape) -> None:
    with pytest.raises(ConfigError, match=config.kind):
        config.build(D, signals, shape)


# The originals, a second time.


class TextFcLayer(nn.Module):
    """GILL's and NExT-GPT's."""

    def __init__(self, d_in: int, d_out: int, tokens: int, mode: str, names: tuple[str, str] = ("fc", "model"),
                 width: int = 512, layers: int = 4, heads: int = 4) -> None:  # fmt: skip
        super().__init__()
        self.mode, self.tokens, (self.first, self.last) = mode, tokens, names
        inside = d_in
        if mode == "gill_mapper":
            inside = width
            setattr(self, self.first, nn.Linear(d_in, width))
            self.tfm = torch_transformer(width, layers, heads)
            self.query_embs = nn.Parameter(torch.randn(1, tokens, width))
        setattr(self, self.last, nn.Linear(inside, d_out))

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        if self.mode == "linear":
            out = getattr(self, self.last)(hidden)
            return out[:, : self.tokens] if out.shape[1] != self.tokens else out
        read = getattr(self, self.first)(hidden + embeddings)
        return getattr(self, self.last)(self.tfm(read, self.query_embs.repeat(len(hidden), 1, 1)))


def torch_transformer(width: int, layers: int, heads: int) -> nn.Transformer:
    return nn.Transformer(width, heads, layers, layers, 4 * width, dropout=0.0, batch_first=True, norm_first=True)


class MiniGpt5(nn.Module):
    def __init__(self, d_in: int, width: int, tokens: int, layers: int = 4, heads: int = 8) -> None:
        super().__init__()
        self.t2i_decoder_prompt = nn.Parameter(torch.randn(1, tokens, width))
        self.llm_to_t2i_mapping = torch_transformer(width, layers, heads)
        self.fc = nn.Sequential(nn.Linear(d_in, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        prompt = self.t2i_decoder_prompt.repeat(len(hidden), 1, 1)
        return self.llm_to_t2i_mapping(src=self.fc(hidden), tgt=prompt)


class Retrieval(nn.Module):
    """FROMAGe's; GILL's with its name for the text half."""

    def __init__(self, d_in: int, d_image: int, width: int, gill: bool) -> None:
        super().__init__()
        self.gill = gill
        if gill:
            self.ret_text_hidden_fcs = nn.ModuleList([TextFcLayer(d_in, width, 1, "linear")])
        else:
            self.text_hidden_fcs = nn.ModuleList([nn.Sequential(nn.Linear(d_in, width), nn.Dropout(0.0))])
        self.visual_fc = nn.Linear(d_image, width)
        self.logit_scale = nn.Parameter(torch.ones([]) * np.log(1 / 0.07))

    def forward(self, hidden: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Text vectors, and logits with a row for each picture."""
        fc = self.ret_text_hidden_fcs[0] if self.gill else self.text_hidden_fcs[0]
        text = (fc(hidden, None) if self.gill else fc(hidden))[:, 0]
        text = text / text.norm(dim=1, keepdim=True)
        pictures = self.visual_fc(pooled)
        pictures = pictures / pictures.norm(dim=1, keepdim=True)
        return text, self.logit_scale.exp() * pictures @ text.t()


class Named(nn.Module):
    """One module under its original's name."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def lisa_mlp(d_in: int, width: int) -> nn.ModuleList:
    layers = [nn.Linear(d_in, d_in), nn.ReLU(inplace=True), nn.Linear(d_in, width), nn.Dropout(0.0)]
    return nn.ModuleList([nn.Sequential(*layers)])


def mix_up(original: nn.Module) -> None:
    """Other weights than first ones, among which biases are zeros and norms ones."""
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)


def take(system: str, original: nn.Module, ours: nn.Module) -> None:
    """The original's weights in our module, by its names; and back again, none changed."""
    theirs = original.state_dict()
    ours.load_state_dict(PROJECTOR_KEYS[system].to_ours(theirs))
    back = PROJECTOR_KEYS[system].to_theirs(ours.state_dict())
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("system", "names", "tokens", "prefix"),
    [("gill", ("fc", "model"), 7, "gen_text_hidden_fcs"), ("next_gpt", ("fc", "model"), 1, ""),
     ("next_gpt_15", ("in_fc", "out_fc"), 7, "")],
)  # fmt: skip
def test_mapper_is_the_original(system: str, names: tuple[str, str], tokens: int, prefix: str) -> None:
    config = MapperConfig(width=32, layers=2, mlp_width=128)
    original = TextFcLayer(D, C, tokens, "gill_mapper", names, width=32, layers=2).eval()
    mix_up(original)
    ours = config.build(D, K, ConditionShape(tokens, C)).eval()
    take(system, Named(**{prefix: nn.ModuleList([original])}) if prefix else original, ours)
    hidden, embeddings = torch.randn(B, K, D), torch.randn(B, K, D)
    assert config.adds_embeddings
    assert not config.reads_before
    torch.testing.assert_close(ours(hidden + embeddings), original(hidden, embeddings), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tokens", [1, K, 6])
def test_linear_mapper_is_the_original(tokens: int) -> None:
    """With more condition than signal tokens, GILL's training cuts what comes out into them."""
    shape = ConditionShape(tokens, C)
    original = TextFcLayer(D, tokens * C // K if tokens > K else C, tokens, "linear")
    ours = MapperConfig(mode="linear").build(D, K, shape)
    take("gill", Named(gen_text_hidden_fcs=nn.ModuleList([original])), ours)
    hidden = torch.randn(B, K, D)
    expected = original(hidden, torch.randn(B, K, D)).reshape(B, tokens, -1)
    torch.testing.assert_close(ours(hidden), expected, atol=1e-5, rtol=1e-5)


def test_encoder_decoder_is_minigpt5s_and_so_is_its_negative() -> None:
    original = MiniGpt5(D, C, 7, layers=2).eval()
    mix_up(original)
    config = EncoderDecoderConfig(layers=2)
    ours = config.build(D, K, ConditionShape(7, C)).eval()
    take("minigpt5", original, ours)
    hidden = torch.randn(B, K, D)
    assert config.reads_before
    assert config.has_negative
    torch.testing.assert_close(ours(hidden), original(hidden), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.negative(2), original(torch.zeros(2, K, D)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("system", "name", "width", "space"), [("emu", "stu_regress_head", D, "llm"), ("emu2", "project_down", C, "encoder")]
)
def test_regression_is_emus(system: str, name: str, width: int, space: Space) -> None:
    original = nn.Linear(D, width, bias=False)
    ours = RegressionConfig(space=space).build(D, 2, ConditionShape(K, width))
    take(system, Named(**{name: original}), ours)
    hidden = torch.randn(B, K, D)
    torch.testing.assert_close(ours(hidden), original(hidden), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("system", "signals"), [("fromage", 1), ("gill_retrieval", K)])
def test_retrieval_is_the_originals_and_so_is_its_loss(system: str, signals: int) -> None:
    original = Retrieval(D, 12, C, gill=system == "gill_retrieval")
    ours = RetrievalConfig(image_width=12).build(D, signals, ConditionShape(1, C))
    assert float(ours.logit_scale.detach()) == pytest.approx(float(original.logit_scale.detach()))
    mix_up(original)
    take(system, original, ours)
    hidden, pooled = torch.randn(B, signals, D), torch.randn(B, 12)
    text, logits = original(hidden, pooled)
    made = ours(hidden)
    torch.testing.assert_close(made[:, 0], text, atol=1e-5, rtol=1e-5)
    scores = ours.scores(ours.pictures(pooled), made[:, 0])
    torch.testing.assert_close(scores, logits, atol=1e-5, rtol=1e-5)
    own = torch.arange(B)
    both = (nn.functional.cross_entropy(logits.t(), own) + nn.functional.cross_entropy(logits, own)) / 2.0
    torch.testing.assert_close(softmax_contrast(scores, scores.T), both, atol=1e-5, rtol=1e-5)


def test_mask_prompt_is_lisas() -> None:
    original = lisa_mlp(D, C)
    ours = MaskPromptConfig().build(D, K, ConditionShape(K, C))
    take("lisa", Named(text_hidden_fcs=original), ours)
    hidden = torch.randn(B, K, D)
    torch.testing.assert_close(ours(hidden), original[0](hidden), atol=1e-5, rtol=1e-5)


def test_first_weights_are_drawn_as_the_originals() -> None:
    """The deviation of each matrix, and which vectors begin at zero."""
    ours = EncoderDecoderConfig(layers=1).build(D, K, ConditionShape(9, 64))
    theirs = PROJECTOR_KEYS["minigpt5"].to_ours(MiniGpt5(D, 64, 9, layers=1).state_dict())
    for name, value in ours.state_dict().items():
        assert float(value.std()) == pytest.approx(float(theirs[name].std()), rel=0.15), name
        assert bool(value.any()) == bool(theirs[name].any()), name
    assert not MapperConfig(query_std=0.0).build(D, K, ConditionShape(2, C)).queries_LE.any()


SD15, SD21, ZEROSCOPE, AUDIOLDM = (ConditionShape(*x) for x in ((77, 768), (77, 1024), (77, 1024), (1, 512)))


@pytest.mark.parametrize(
    ("config", "d_model", "signals", "shape", "original", "count"),
    [
        (MapperConfig(), 4096, 8, SD15, lambda: TextFcLayer(4096, 768, 77, "gill_mapper"), 31_958_784),
        (MapperConfig(), 4096, 4, SD15, lambda: TextFcLayer(4096, 768, 77, "gill_mapper"), 31_958_784),
        (MapperConfig(), 4096, 24, ZEROSCOPE, lambda: TextFcLayer(4096, 1024, 77, "gill_mapper"), 32_090_112),
        (MapperConfig(), 4096, 8, AUDIOLDM, lambda: TextFcLayer(4096, 512, 1, "gill_mapper"), 31_788_544),
        (EncoderDecoderConfig(), 4096, 8, SD21, lambda: MiniGpt5(4096, 1024, 77), 122_899_456),
        (RegressionConfig(), 5120, 2, ConditionShape(32, 5120), lambda: nn.Linear(5120, 5120, bias=False), 26_214_400),
        (RegressionConfig(space="encoder"), 6656, 2, ConditionShape(64, 1792), lambda: nn.Linear(6656, 1792, bias=False), 11_927_552),
        (RetrievalConfig(), 4096, 1, ConditionShape(1, 256), lambda: Retrieval(4096, 1024, 256, False), 1_311_233),
        (RetrievalConfig(), 4096, 8, ConditionShape(1, 256), lambda: Retrieval(4096, 1024, 256, True), 1_311_233),
        (MaskPromptConfig(), 4096, 1, ConditionShape(1, 256), lambda: lisa_mlp(4096, 256), 17_830_144),
    ],
    ids=["gill", "next_gpt", "next_gpt video", "next_gpt audio", "minigpt5", "emu", "emu2", "fromage", "gill retrieval", "lisa"],
)  # fmt: skip
def test_published_size(
    config: OutputProjectorConfig, d_model: int, signals: int, shape: ConditionShape,
    original: Callable[[], nn.Module], count: int,
) -> None:  # fmt: skip
    with torch.device("meta"):
        ours, theirs = config.build(d_model, signals, shape), original()
    assert all(p.is_meta for p in ours.parameters())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == count
