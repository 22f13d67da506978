"""SEED's tokenizer: a picture as 32 ids, each of which knows only those before it; ids -> an embedding that steers unCLIP.

EVA-CLIP-g, a Q-Former whose queries look back only, a codebook; behind it blocks, and a map of all codes to the embedding of
CLIP ViT-H/14. Ids are of a whole picture and lie on no map: pictures are squares of one size.

Sources: SEED (arXiv:2307.08041), SEED-LLaMA (arXiv:2310.01218); github.com/AILab-CVC/SEED, MultiModalLLM/src/tokenizer/qformer/
qformer_quantizer.py and, for what it learns by, SEED_Tokenizer/lavis/models/blip2_models/blip2_qformer_codebook_all_image.py. Its
codebook follows the vectors with a quarter of the weight that holds vectors near their codes, which is the other way round in most.

Shape legend: B pictures, C colours, H/W pixels, L tower's features, N codes of a picture, D width, E width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Grid
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.hands import Asked, Making
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.core.weights import FolderSource, WeightSource, with_fetch
from sensorium.generators.pixel_values import PixelTokenizer
from sensorium.generators.seed_parts import NARROW, Blocks, Former, narrow
from sensorium.generators.unclip import Unclip, UnclipConfig
from sensorium.nn.pretrained import load_folder, need_weights
from sensorium.nn.query_former import QueryFormer
from sensorium.nn.vector_quantise import QuantiseConfig, VectorQuantise

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CODEBOOK_SHARE = 0.25
"""Weight of the term that moves codes, where that which moves vectors has 1."""
HUB, FILE = "AILab-CVC/seed-tokenizer-2", "seed_quantizer.pt"
SIZES = ("size_px", "codes", "code_width", "queries", "width", "layers", "blocks", "gather", "tower_width", "tower_layers")
"""What makes their weights fit."""
WEIGHTS = {"codebook": 5.0, "recall": 2.0, "embedding": 0.5}
"""Of the parts of its loss."""


class SeedConfig(PictureTokenizerConfig):
    """Defaults are SEED-2's, which SEED-LLaMA reads and writes."""

    trains: ClassVar[bool] = True
    kind: Literal["seed"] = "seed"
    size_px: int = 224
    codes: int = Field(default=8192, ge=1)
    code_width: int = 32
    queries: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    gather: Literal["narrow", "former"] = "narrow"
    """How one embedding comes of all codes: each becomes few numbers and these are laid side by side, as in the released file; or by a
    Q-Former with one query, as in the training code."""
    blocks: int = 4
    """Behind the codebook, on the way to what the queries said, and on that to the embedding."""
    tower_width: int = 1408
    tower_layers: int = 39
    tower_heads: int = 16
    tower_mlp_width: int = 6144
    patch_px: int = 14
    generator: UnclipConfig = UnclipConfig()
    """What the embedding steers."""
    steps: int = Field(default=20, ge=1)
    guidance: float = 10.0
    """How it draws (seed_llama_tokenizer.py)."""

    @classmethod
    def tiny(cls) -> SeedConfig:
        return cls(
            size_px=64, codes=16, code_width=4, queries=4, width=32, layers=2, heads=4, mlp_width=48, blocks=1, tower_width=32, tower_layers=2,
            tower_heads=4, tower_mlp_width=48, patch_px=16, generator=UnclipConfig.tiny(), steps=2,
        )  # fmt: skip

    @property
    def heeds(self) -> frozenset[Asked]:
        """Those of the unCLIP that draws what ids mean."""
        return frozenset({"steps", "guidance"})

    @property
    def stride(self) -> int:
        return self.size_px

    def grid(self) -> Grid:
        return Grid(1, self.queries)

    @property
    def whole(self) -> bool:
        return True

    def former(self, queries: int) -> Former:
        """Sizes of a Q-Former of so many queries."""
        return Former(queries, self.width, self.layers, self.heads, self.mlp_width)

    def build_tower(self) -> nn.Module:
        """EVA-CLIP-g by transformers' BLIP-2, with its norm behind."""
        from transformers import Blip2VisionConfig, Blip2VisionModel

        return Blip2VisionModel(Blip2VisionConfig(
            hidden_size=self.tower_width, num_hidden_layers=self.tower_layers, num_attention_heads=self.tower_heads,
            intermediate_size=self.tower_mlp_width, image_size=self.size_px, patch_size=self.patch_px,
            # The class' own value, 1e-10, makes a tower without weights blind.
            initializer_range=0.02,
        ))  # fmt: skip

    @property
    def published_as(self) -> str | None:
        plain = SeedConfig()
        return HUB if all(getattr(self, name) == getattr(plain, name) for name in SIZES) else None

    def fetch(self, path: str) -> str:
        file = Path(path) if path.endswith(".pt") else Path(path) / FILE
        said = f"hf download {HUB} {FILE} --local-dir {file.parent}"
        # Authors' files are converted.
        return said if path.endswith(".pt") else f"{said}, and name {{kind: file, format: seed, path: {file}}}"

    def build(self, folder: Path | None = None) -> SeedTokenizer:
        if folder is None:
            self.refuse_random()
            return self.blank()
        need_weights(folder, self.fetch(str(folder)))
        tokenizer = self.blank()
        load_folder(tokenizer, folder, self.fetch(str(folder)))
        return tokenizer

    def blank(self) -> SeedTokenizer:
        return SeedTokenizer(self).eval()


@dataclass(frozen=True, slots=True)
class SeedPass:
    """There and back, with gradients."""

    said_BND: Tensor
    """What the queries say of pictures; without a gradient."""
    recalled_BND: Tensor
    """The same, out of the codes."""
    embedding_BE: Tensor
    ids_BN: Tensor
    loss: Tensor
    """Of the codebook."""


class SeedTokenizer(PixelTokenizer):
    """Tower, causal Q-Former, codebook, and what makes an embedding of codes."""

    def __init__(self, config: SeedConfig) -> None:
        super().__init__(config)
        self.config = config
        width = config.width
        self.tower: Any = config.build_tower()
        self.former = QueryFormer(config.former(config.queries), config.tower_width)
        self.down = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, config.code_width))
        # The loss of this class is (codes + beta vectors); see CODEBOOK_SHARE.
        self.quantise = VectorQuantise(QuantiseConfig(
            codes=config.codes, width=config.code_width, learns="loss", beta=1 / CODEBOOK_SHARE, revive_below=0.0))  # fmt: skip
        # Codes near each other, as the original's first ones are, are told apart by where a vector points.
        nn.init.uniform_(self.quantise.codebook_KD, -1 / config.codes, 1 / config.codes)
        self.up = nn.Sequential(nn.Linear(config.code_width, config.code_width), nn.Tanh(), nn.Linear(config.code_width, width))
        self.recall, self.draw = (Blocks(config.queries, width, config.heads, config.blocks) for _ in range(2))
        self.reverse = QueryFormer(config.former(1), width) if config.gather == "former" else narrow(width)
        self.out = nn.Linear(width if config.gather == "former" else config.queries * NARROW[-1], config.generator.width)
        # They are taught before, by captions (recipe `seed-queries`).
        self.tower.requires_grad_(False)
        self.former.requires_grad_(False)
        self._unclip: Unclip | None = None

        self.locate: Callable[[tuple[WeightSource, ...]], Path | None] = _folder_of
        """Where unCLIP's `weights` are; within a model sources of every kind can be had."""

    @property
    def unclip(self) -> Unclip:
        """What draws, built when it is asked for, from the first of its `weights` that can be had.

        Raises:
            MissingDependencyError, WeightsError: it cannot be had.
        """
        if self._unclip is None:
            drawn = self.config.generator
            try:
                folder = self.locate(drawn.weights)
            except WeightsError as error:
                raise with_fetch(error, drawn.weights, drawn.fetch) from None
            with torch.random.fork_rng(devices=[]):
                # A tiny one draws the same in every process.
                torch.manual_seed(0)
                self._unclip = cast(Unclip, drawn.build(folder))
        return self._unclip.to(cast(Tensor, self.down[0].weight).device)

    def take_queries(self, tensors: Mapping[str, Tensor]) -> None:
        """Begin with a tower and queries that captions have taught (`interop.seed_queries`).

        Raises:
            WeightsError: they are of other sizes.
        """
        mine = {name: value.shape for name, value in self.state_dict().items() if name.startswith(("tower.", "former."))}
        given = {name: value.shape for name, value in tensors.items()}
        if unlike := sorted(name for name in mine | given if mine.get(name) != given.get(name)):
            raise WeightsError(f"queries that do not fit: {len(unlike)} tensors, {unlike[0]} first", where=self._where,
                               expected="a tower and queries of the tokenizer's own sizes")  # fmt: skip
        self.load_state_dict(dict(tensors), strict=False)

    def to_values(self, pixels_BCHW: Tensor) -> Tensor:
        """0..255 -> CLIP's."""
        mean_C11, std_C11 = (torch.tensor(part, device=pixels_BCHW.device)[:, None, None] for part in (MEAN, STD))
        return (pixels_BCHW.float() / 255 - mean_C11) / std_C11

    def said(self, values_BCHW: Tensor) -> Tensor:
        """What the queries say of pictures, (B, N, D)."""
        seen_BLD = self.tower(values_BCHW).last_hidden_state
        back_NN = torch.ones(self.config.queries, self.config.queries, dtype=torch.bool, device=values_BCHW.device).tril()
        return self.former.states(seen_BLD, mask=back_NN[None, None])

    def forward(self, values_BCHW: Tensor) -> SeedPass:
        """Pictures to codes, and codes to what the queries said and to the embedding; tower and queries are not taught here."""
        with torch.no_grad():
            said_BND = self.said(values_BCHW)
        quantised = self.quantise(self.down(said_BND).flatten(0, 1))
        codes_BNd = quantised.values_ND.view(*said_BND.shape[:2], -1)
        up_BND = self.up(codes_BNd)
        ids_BN = quantised.ids_N.view(said_BND.shape[:2])
        return SeedPass(said_BND, self.recall(up_BND), self._embedding(up_BND), ids_BN, quantised.loss)

    def truth(self, pixels_BCHW: Tensor) -> Tensor:
        """What the embedding of pictures, uint8, is to be: that of unCLIP's own encoder."""
        pictures = [picture.permute(1, 2, 0).cpu().numpy() for picture in pixels_BCHW]
        return self.unclip.encode_images(pictures)[:, 0].to(pixels_BCHW.device).float()

    def losses(self, values_BCHW: Tensor, truth_BE: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Weighed parts of the loss, and the ids.

        Args:
            truth_BE: what the embedding is to be (`truth`).
        """
        out = self(values_BCHW)
        away = 1 - F.cosine_similarity(out.recalled_BND, out.said_BND, dim=-1).mean()
        parts = {"codebook": CODEBOOK_SHARE * out.loss, "recall": away, "embedding": F.mse_loss(out.embedding_BE, truth_BE)}
        return {name: WEIGHTS[name] * part for name, part in parts.items()}, out.ids_BN

    def encode_values(self, values_BCHW: Tensor) -> Tensor:
        return self.quantise.nearest(self.down(self.said(values_BCHW)).flatten(0, 1)).view(len(values_BCHW), -1)

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """See `PictureTokenizer.encode`; all pictures are squares of `size_px`."""
        if pixels_BCHW.ndim == 4 and pixels_BCHW.shape[2:] != (self.size_px, self.size_px):
            raise ConfigError(f"pictures of {pixels_BCHW.shape[2]} x {pixels_BCHW.shape[3]} pixels", expected=f"{self.size_px} x {self.size_px}",
                              where=self._where)  # fmt: skip
        return super().encode(pixels_BCHW)

    def condition(self, ids_BN: Tensor) -> Tensor:
        """What steers unCLIP, (B, 1, E)."""
        return self._embedding(self.up(self.quantise.lookup(ids_BN)))[:, None]

    def decode_values(self, ids_BN: Tensor, grid: Grid) -> Tensor:
        return self.drawn_values(ids_BN, grid, None)

    def drawn_values(self, ids_BN: Tensor, grid: Grid, making: Making | None) -> Tensor:
        """Values of pictures that unCLIP draws, by its own steps and guidance where others are not asked for.

        Raises:
            CancelledError: somebody asked to stop.
            ConfigError: codes of another layout.
        """
        if grid != self.grid:
            raise ConfigError(f"codes in {grid.h} rows of {grid.w}", expected=f"one row of {self.grid.w}", where=self._where)
        plain, making = Making(), making or Making()
        making = replace(
            making, steps=self.config.steps if making.steps == plain.steps else making.steps,
            # The size is of the codes' layout, of which there is one.
            guidance=self.config.guidance if making.guidance == plain.guidance else making.guidance, size=None, seconds=None,
        )  # fmt: skip
        made = self.unclip.generate(self.condition(ids_BN), making=making)
        return super().to_values(torch.from_numpy(np.stack([one.array for one in made])).permute(0, 3, 1, 2))

    def _embedding(self, up_BND: Tensor) -> Tensor:
        drawn_BND = self.draw(up_BND)
        if isinstance(self.reverse, QueryFormer):
            return self.out(self.reverse.states(drawn_BND)[:, 0])
        return self.out(self.reverse(drawn_BND).flatten(1))


def _folder_of(sources: tuple[WeightSource, ...]) -> Path | None:
    """The first folder that is there; None where nothing is named.

    Raises:
        WeightsError: none is.
    """
    named = [Path(source.path) for source in sources if isinstance(source, FolderSource)]
    found = next((folder for folder in named if folder.is_dir()), None)
    if sources and found is None:
        raise WeightsError(f"no folder of unCLIP's weights is there, of {len(sources)} sources", where=", ".join(map(str, named)) or "generator.weights",
                           expected="a folder in diffusers' layout")  # fmt: skip
    return found
