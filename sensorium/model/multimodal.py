"""The whole story in one `forward`: embed, encode, project, fuse, run the LLM.

Shape legend: B rows, T tokens, D LLM width, N features laid end to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sensorium.backbones.bias_norm import add_biases
from sensorium.backbones.causal_lm import CausalLM
from sensorium.backbones.cross_lm import CrossLM
from sensorium.backbones.cross_tower import CrossTower
from sensorium.backbones.query_tower import QueryTower
from sensorium.backbones.seq2seq_lm import Seq2SeqLM
from sensorium.backbones.text_tower import TextTower
from sensorium.core.batch import Batch, Features, MediaBatch, Output
from sensorium.core.errors import AlignmentError, ConfigError
from sensorium.core.hands import MadeKind
from sensorium.core.naming import of_choice, of_detail, of_other
from sensorium.core.picture_words import CODES, code_words
from sensorium.core.shelf import Shelf
from sensorium.fusion.apart import Apart
from sensorium.fusion.cross_attention import CrossAttention
from sensorium.fusion.gated_cross_attention import GatedCrossAttention
from sensorium.fusion.splice import Splice
from sensorium.fusion.visual_expert import VisualExpert
from sensorium.fusion.visual_prompt import VisualPrompt
from sensorium.model.check import check_model
from sensorium.model.config import AdaptionPromptConfig, ModelConfig, PrefixConfig
from sensorium.model.generators import Generators
from sensorium.model.glance import Glance
from sensorium.model.kept import encode_kept, run_encoder
from sensorium.model.lookup import VocabularyLookup
from sensorium.model.picture_words import CodeTables, codes_of
from sensorium.model.places import Places
from sensorium.model.tiles import pack_tiles
from sensorium.model.written import Written


class MultimodalModel(nn.Module):
    """Encoders, projectors, fusion and the LLM backbone."""

    def __init__(
        self, config: ModelConfig, folders: Mapping[str, Path] | None = None
    ) -> None:
        """Build every part.

        Args:
            folders: part name (`backbone`, `encoders.image`) -> folder with its weights;
                parts without one start at random.
        """
        super().__init__()
        folders = folders or {}
        check_model(config)
        self.config = config
        self.shelf: Shelf | None = None
        """Where the features that frozen encoders make are kept, if anywhere."""
        self.backbone = cast(
            CausalLM | Seq2SeqLM | TextTower | CrossLM | CrossTower | QueryTower,
            config.backbone.build(folders.get("backbone")),
        )
        self.tuned = self._adapt()
        """Biases and norms of the LLM that are the adapter's, by their names in the model."""
        d_model = config.backbone.d_media
        self.encoders = nn.ModuleDict(
            {
                kind: lane.encoder.build(folders.get(f"encoders.{kind}"))
                for kind, lane in config.lanes.items()
            }
        )
        for kind, lane in config.lanes.items():
            if lane.detail is not None:
                name = of_detail(kind)
                self.encoders[name] = lane.detail.build(folders.get(f"encoders.{name}"))
        self.projectors = nn.ModuleDict(
            {kind: lane.projector.build(lane.encoder.out_dim, d_model) for kind, lane in config.lanes.items()}
        )
        self.lookups = nn.ModuleDict(
            {
                kind: VocabularyLookup(lane.lookup, d_model)
                for kind, lane in config.lanes.items()
                if lane.lookup
            }
        )
        told = {kind: (lane.places, lane.encoder.out_dim) for kind, lane in config.lanes.items() if lane.places}
        self.places = nn.ModuleDict({kind: Places(places, d_in, d_model) for kind, (places, d_in) in told.items()})
        with_newlines = [kind for kind, lane in config.lanes.items() if getattr(lane.resolution, "newline", False)]
        self.newlines = nn.ParameterDict(
            {kind: nn.Parameter(torch.randn(d_model) * d_model**-0.5) for kind in with_newlines}
        )
        choices = {of_choice(kind): hand.choice for kind, hand in config.hands.items() if hand.choice is not None}
        self.hands = nn.ModuleDict({name: part.build(config.backbone.d_model) for name, part in (config.ways | choices).items()})
        self.generators = Generators(config, folders)
        self._build_picture_words(folders)
        self.fusion = cast(
            Splice | GatedCrossAttention | VisualPrompt | Apart | CrossAttention,
            config.fusion.build(d_model, config.backbone.num_layers, self._media_width(d_model)),
        )
        if isinstance(self.fusion, VisualExpert):
            backbone = cast(CausalLM | Seq2SeqLM, self.backbone)
            self.fusion.adopt(backbone.layers_for_experts())

    def _adapt(self) -> frozenset[str]:
        """Build in what no weight could take in later; names of biases and norms that are the adapter's."""
        words, written = self.config.backbone.vocab_size, self.config.written
        self.written = Written(written, words, self.config.backbone.d_model) if written else None
        prompts, tuning = self.config.adapter, self.config.tuning
        if isinstance(prompts, AdaptionPromptConfig):
            self.backbone.add_prompts(prompts.layers, prompts.length, prompts.gate)
        if isinstance(prompts, PrefixConfig):
            if not isinstance(self.backbone, CausalLM):
                raise ConfigError(f"a prefix for a backbone of kind {self.config.backbone.kind}", expected="causal_lm",
                                  where="model.adapter", fix="use adapter: {kind: lora}")  # fmt: skip
            self.backbone.add_prefix(prompts.length, prompts.hidden)
        if tuning is None:
            return frozenset()
        names = add_biases(self.backbone, tuning.added, norms=tuning.norms)
        return frozenset(f"backbone.{name}" for name in names)

    def _build_picture_words(self, folders: Mapping[str, Path]) -> None:
        """What reads and writes pictures as tokens: a tokenizer, each code's word, and tables where codes have their own."""
        told = self.config.picture_words
        self.picture_tokenizer: Any = None
        self.code_tables: CodeTables | None = None
        if told is None:
            return
        folder = folders.get("picture_tokenizer")
        self.picture_tokenizer = told.tokenizer.blank() if folder is None else told.tokenizer.build(folder)
        words = code_words(told, self.config.backbone.vocab_size)
        self.register_buffer("code_words", torch.tensor(words), persistent=False)
        if told.tables is not None:
            self.code_tables = CodeTables(told.tables, told.tokenizer.codes, self.config.backbone.d_model)

    def _media_width(self, d_model: int) -> int:
        """Width of what the projectors yield: the LLM's, unless one leaves it unprojected."""
        widths = {
            d_model if getattr(lane.projector, "project", True) else lane.encoder.out_dim
            for lane in self.config.lanes.values()
        }
        if len(widths) > 1 or (self.config.fusion.fills_slots and widths - {d_model}):
            raise ConfigError(
                f"projectors yield tokens of width {sorted(widths)}",
                expected=f"{d_model}, the LLM's width",
                fix="set project: true on the projector",
            )
        # Where a lane has a second encoder, what enters inside the layers comes from it.
        details = {lane.detail.out_dim for lane in self.config.lanes.values() if lane.detail}
        return (details or widths or {d_model}).pop()

    @property
    def device(self) -> torch.device:
        return self.backbone.embedding.weight.device

    def encode(self, kind: str, media: MediaBatch) -> Features:
        """Encoder features of all inputs, tiles included."""
        if media.features is not None:
            return media.features
        if any(media.kept):
            return encode_kept(self.encoders[self.config.lane_of(kind)], kind, media, self.shelf)
        return run_encoder(self.encoders[self.config.lane_of(kind)], kind, media)

    def projected(self, kind: str, media: MediaBatch) -> Features:
        """Projector outputs of all inputs, tiles included."""
        return self.project(kind, self.encode(kind, media), media)

    def project(self, kind: str, encoded: Features, media: MediaBatch) -> Features:
        """Projector outputs of encoder features; a projector that reads gets each input's text."""
        name = self.config.lane_of(kind)
        if self.config.lanes[name].projector.vocabulary is None:
            return self.projectors[name](encoded)
        return self.projectors[name](encoded, texts_of_inputs(media))

    def features(self, media: Mapping[str, MediaBatch]) -> dict[str, Features]:
        """Projected features, one item for each medium."""
        out: dict[str, Features] = {}
        for kind, batch in media.items():
            encoded = self.encode(kind, batch)
            projected = self.project(kind, encoded, batch)
            name = self.config.lane_of(kind)
            if name in self.lookups:
                projected = self.lookups[name](projected, self.backbone.embedding.weight)
            if name in self.places:
                places, lookup = cast(Places, self.places[name]), cast(VocabularyLookup, self.lookups[name])
                glance = Glance(self.encoders[name], self.projectors[name], batch) if places.config.glance else None
                told_MRD = places(encoded, lookup, self.backbone.embedding.weight, glance, texts_of_inputs(batch))
                projected = places.in_front(projected, told_MRD)
            newline = self.newlines.get(name, None)
            out[kind] = pack_tiles(projected, batch.plans, newline)
            if batch.details_NCHW is not None:
                out[of_detail(kind)] = self.encoders[of_detail(kind)](batch.details_NCHW)
        return out

    def read(self, batch: Batch) -> Batch:
        """The batch with the words of pictures that are read as tokens in their places; one without such pictures as it is.

        Raises:
            AlignmentError: there are not as many places as codes.
        """
        media = batch.media.get(CODES)
        if media is None:
            return batch
        slots_BT = batch.slots[CODES]
        words_N = cast(Tensor, self.code_words)[codes_of(self.picture_tokenizer, media)]
        if int(slots_BT.sum()) != len(words_N):
            raise AlignmentError(f"{len(words_N)} codes", expected=f"{int(slots_BT.sum())}, the places for them")
        others = {kind: one for kind, one in batch.media.items() if kind != CODES}
        slots = {kind: one for kind, one in batch.slots.items() if kind != CODES}
        return replace(batch, input_ids_BT=batch.input_ids_BT.masked_scatter(slots_BT, words_N), media=others, slots=slots)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """What the LLM reads for tokens, (B, T, D): words of codes that are none of its vocabulary have an embedding of their own."""
        if self.code_tables is None:
            return self.backbone.embed(ids_BT)
        first = self.config.backbone.vocab_size
        coded_BT = ids_BT >= first
        embeds_BTD = self.backbone.embed(ids_BT.masked_fill(coded_BT, 0))
        if not bool(coded_BT.any()):
            return embeds_BTD
        codes_BTD = self.code_tables.embed((ids_BT - first).clamp(min=0))
        return torch.where(coded_BT[..., None], codes_BTD.to(embeds_BTD.dtype), embeds_BTD)

    def code_scores(self, hidden: Tensor) -> Tensor:
        """Scores of the codes of pictures, (..., codes)."""
        if self.code_tables is not None:
            return self.code_tables.scores(hidden)
        return self.logits(hidden)[..., cast(Tensor, self.code_words)]

    def forward(self, batch: Batch) -> Output:
        """The last hidden states of every token; `logits` turns them to logits."""
        batch = self.read(batch)
        embeds_BTD = self.embed(batch.input_ids_BT)
        features = self.features(batch.media)
        embeds_BTD = self.fusion.enter(embeds_BTD, features, batch.slots)
        context: Any = self.fusion.context(features, batch.media, len(embeds_BTD))
        insert: Any = self.fusion.inserter(context, batch.media_index_BT, batch.slots)
        hidden_BTD = self.backbone.teacher_forced(embeds_BTD, batch, insert)
        return Output(hidden_BTD, features)

    def condition(
        self, way: str, hidden_BTD: Tensor, input_ids_BT: Tensor, places: Sequence[tuple[int, int]]
    ) -> Tensor:
        """What a generator is to be steered by, (media, L, C).

        Args:
            way: a kind of medium, or the name of its second way.
            places: row and first signal token of each medium. Where what is made is read (`feeds_back`), that token's state and
                those of the vectors behind it make the vectors.
        """
        hand = self.config.ways[way]
        count, back = hand.reads, int(hand.projector.reads_before)
        hidden_NKD = torch.stack([hidden_BTD[row, start - back : start - back + count] for row, start in places])
        if hand.projector.adds_embeddings:
            ids_NK = torch.stack([input_ids_BT[row, start : start + count] for row, start in places])
            hidden_NKD = hidden_NKD + self.backbone.embed(ids_NK)
        return self.hands[way](hidden_NKD)

    def chosen(self, kind: MadeKind, hidden_BTD: Tensor, place: tuple[int, int]) -> str:
        """The way that is decided for; the first one where there is nothing to decide.

        Args:
            place: row and first signal token of the medium.
        """
        other, choice = of_other(kind), self.config.hands[kind].choice
        if choice is None or (choice.falls_back and not self.generators.ready(other)):
            return kind
        row, start = place
        scores_12 = self.hands[of_choice(kind)](hidden_BTD[row, start : start + 1][None])
        return (kind, other)[int(scores_12.argmax())]

    def negative(self, way: str, signals: Sequence[int]) -> Tensor | None:
        """What a generator is to be led away from, (1, L, C): what the projector makes of zeros in place of hidden states.
        None: the generator's own.

        Args:
            way: a kind of medium, or the name of its second way.
            signals: ids of the tokens that stand for such a medium.
        """
        projector = self.config.ways[way].projector
        if not projector.has_negative:
            return None
        states_1KD = self.backbone.embed(torch.tensor([signals], device=self.device))
        return self.hands[way](states_1KD if projector.adds_embeddings else torch.zeros_like(states_1KD))

    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary scores of hidden states, (..., D) -> (..., V)."""
        logits = self.backbone.logits(hidden)
        return logits if self.written is None else self.written(hidden, logits)

    @property
    def head(self) -> tuple[Tensor, float] | None:
        """The matrix (V, D) that makes `logits`, and their scale; None: there is more to it."""
        head: tuple[Tensor, float] | None = getattr(self.backbone, "head", None)
        if head is None or self.written is None:
            return head
        weight_VD, scale = head
        return self.written.folded(weight_VD, scale), scale


def texts_of_inputs(media: MediaBatch) -> list[tuple[int, ...]]:
    """The text that goes with each of the encoder's inputs; empty where there are none."""
    if not media.texts:
        return []
    return [text for text, plan in zip(media.texts, media.plans, strict=True) for _ in range(plan.images)]
