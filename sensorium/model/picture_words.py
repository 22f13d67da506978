"""Pictures that an LLM reads and writes as tokens: which picture tokenizer makes them, and how its codes live with the LLM.

Either each code has a word of the LLM's vocabulary, and pictures are read and written like text (Chameleon, arXiv:2405.09818;
Emu3, arXiv:2409.18869), or codes have an embedding and a head of their own (Janus, arXiv:2410.13848), and an encoder reads.

Shape legend: B pictures, C colours, H/W pixels, N codes laid end to end, D width.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field, SerializeAsAny, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Grid, MediaBatch
from sensorium.core.config import Config, kinds
from sensorium.core.hands import Drawing
from sensorium.core.parts import ResolutionConfig
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.generators import PICTURE_TOKENIZERS
from sensorium.media import RESOLUTIONS
from sensorium.media.resolution import FixedResolution
from sensorium.text.chat import EOS, TEMPLATES, TemplateName

AnyPictureTokenizer = Annotated[SerializeAsAny[PictureTokenizerConfig], kinds(PICTURE_TOKENIZERS, PictureTokenizerConfig)]
AnyResolution = Annotated[SerializeAsAny[ResolutionConfig], kinds(RESOLUTIONS, ResolutionConfig)]


class CodeTablesConfig(Config):
    """An embedding of codes with a map into the LLM, and a head; sizes are Janus'."""

    width: int = 8
    """Of the embedding, in front of the map."""
    depth: int = Field(default=2, ge=1)
    """Linear layers of the map, with a GELU between two."""
    head_width: int | None = None
    """Between the head's two layers; None: the LLM's width."""


class PictureWordsConfig(Config):
    """A picture is `begin`, rows of codes, each closed by `row_end`, and `end`."""

    tokenizer: AnyPictureTokenizer
    words: tuple[tuple[int, int], ...] = ()
    """Words of the vocabulary in the codes' order, as runs (first, count); empty: codes have `tables`."""
    tables: CodeTablesConfig | None = None
    begin: tuple[str, ...] = Field(min_length=1)
    """Control tokens in front of the codes, the first of which says that a picture begins; one with `{h}` and `{w}` is text,
    the rows and columns of codes."""
    row_end: str | None = None
    """The control token behind each row; without it all pictures are of the tokenizer's own size."""
    end: tuple[str, ...] = Field(min_length=1)
    """Control tokens behind the codes."""
    resolution: AnyResolution = FixedResolution(fit="crop")
    """How a picture becomes one that is tokenised: `fixed`, or `native` with patches of one code."""
    interpolation: str = "bicubic"
    template: TemplateName | None = None
    """The chat template of conversations that are answered with a picture that is asked for; None: the model's own."""
    drawing: Drawing = Drawing()

    @property
    def shared(self) -> bool:
        return self.tables is None

    @model_validator(mode="after")
    def _all_codes(self) -> PictureWordsConfig:
        named = sum(count for _, count in self.words)
        if self.tables is None and named != self.tokenizer.codes:
            raise ValueError(f"{named} words for {self.tokenizer.codes} codes; name one for each, or give tables")
        if self.tables is not None and self.words:
            raise ValueError("words and tables; choose one of them")
        if self.resolution.kind == "native":
            patch, merge = getattr(self.resolution, "patch_px", 0), getattr(self.resolution, "merge", 0)
            if patch * merge != self.tokenizer.stride or merge != 1:
                raise ValueError(f"patches of {patch} px, merged by {merge}, for codes of {self.tokenizer.stride} px; set patch_px "
                                 f"{self.tokenizer.stride} and merge 1")  # fmt: skip
        elif self.resolution.kind != "fixed":
            raise ValueError(f"resolution {self.resolution.kind} for a picture tokenizer; nearest: fixed, native")
        return self


def marks(told: PictureWordsConfig, template: str) -> tuple[str, ...]:
    """The control tokens of pictures and of a chat template, which a tokenizer of bytes lacks."""
    found = [token for token in told.begin if "{" not in token]
    found += [*([told.row_end] if told.row_end else []), *told.end, *TEMPLATES[template].control]
    return tuple(dict.fromkeys(token for token in found if token != EOS))


class CodeTables(nn.Module):
    """Codes -> what the LLM reads in their place, and its states -> their scores."""

    def __init__(self, config: CodeTablesConfig, codes: int, d_model: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, config.width)
        self.first = nn.Linear(config.width, d_model)
        self.hidden = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(1, config.depth))
        inner = config.head_width or d_model
        self.head_in = nn.Linear(d_model, inner)
        self.head_out = nn.Linear(inner, codes)

    def embed(self, codes_N: Tensor) -> Tensor:
        """(...) -> (..., D)."""
        x_ND = self.first(self.embedding(codes_N))
        for layer in self.hidden:
            x_ND = layer(F.gelu(x_ND))
        return x_ND

    def scores(self, hidden_ND: Tensor) -> Tensor:
        """(..., D) -> (..., codes)."""
        return self.head_out(F.gelu(self.head_in(hidden_ND)))


@torch.no_grad()
def codes_of(tokenizer: Any, media: MediaBatch) -> Tensor:
    """Codes of all pictures end to end, (N,), each picture's in reading order; those of one size are tokenised together."""
    # Batch norms of a tokenizer must not learn from what it sees.
    tokenizer.eval()
    pictures = _whole(media)
    found: list[Tensor] = [media.pixels_NCHW.new_empty(0, dtype=torch.long)] * len(pictures)
    for shape in dict.fromkeys(tuple(one.shape) for one in pictures):
        places = [i for i, one in enumerate(pictures) if tuple(one.shape) == shape]
        # In half precision the nearest code is another one.
        with torch.autocast(media.pixels_NCHW.device.type, enabled=False):
            ids_BN = tokenizer.encode(torch.stack([pictures[i] for i in places]))
        for i, ids_N in zip(places, ids_BN, strict=True):
            found[i] = ids_N.long()
    return torch.cat(found)


def _whole(media: MediaBatch) -> list[Tensor]:
    """The pictures, (C, H, W) each, those that lie there in patches put together again."""
    if media.patches is None:
        return list(media.pixels_NCHW)
    pieces = media.pixels_NCHW.split([grid.tokens for grid in media.patches])
    return [_joined(piece_NCSS, grid) for piece_NCSS, grid in zip(pieces, media.patches, strict=True)]


def _joined(patches_NCSS: Tensor, grid: Grid) -> Tensor:
    rows = patches_NCSS.unflatten(0, (grid.h, grid.w)).permute(2, 0, 3, 1, 4)
    return rows.flatten(3, 4).flatten(1, 2)
