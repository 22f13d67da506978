"""The Processor: Sample -> Example. The same one trains, evaluates and serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sensorium.core.batch import Example, TilePlan, Wanted
from sensorium.core.errors import ConfigError
from sensorium.core.parts import ModelShape
from sensorium.core.picture_words import CODES
from sensorium.core.sample import PLACE_KINDS, Message, Part, Sample
from sensorium.core.shelf import Shelf
from sensorium.media.augment import Augmentation
from sensorium.media.limits import ImageLimits
from sensorium.processing.draft import Draft, frame_text, share_prefix
from sensorium.processing.finish import finish
from sensorium.processing.lanes import Lanes
from sensorium.processing.masks import place_mask
from sensorium.processing.picture_words import WordFrames
from sensorium.processing.places import place_pieces
from sensorium.processing.sample_media import Inputs, SampleMedia, prepared
from sensorium.processing.signals import made_ids, media_seen, signal_ids, wanted_of
from sensorium.processing.taken import check_parts
from sensorium.processing.videos import with_frames
from sensorium.text.bare import bare_text
from sensorium.text.boxes import BOX_FORMATS, BoxFormat, find_box_format
from sensorium.text.chat import ChatTemplate, Piece, choose_template, control_id, render, stop_ids
from sensorium.text.tokenizer import Tokenizer


class Processor:
    """Turns conversations into model input by the model's own config."""

    def __init__(
        self, config: ModelShape, tokenizer: Tokenizer, *, template: str | None = None, limits: ImageLimits | None = None
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.template: ChatTemplate = choose_template(template or config.template, tokenizer)
        self.limits = limits or ImageLimits()
        self.stop_ids = stop_ids(self.template, tokenizer)
        self._fills_slots: bool = config.fusion.fills_slots
        token = config.placeholder_token
        self._placeholder = tokenizer.special_id(token) if token else tokenizer.pad_id
        self._markers = [tokenizer.special_id(token) for token in config.image_markers]
        self.signals = signal_ids(config.hands, tokenizer)
        """The tokens that stand for each kind of medium that the model makes."""
        self.frames: WordFrames | None = None
        """How pictures are written as tokens, where the model does that."""
        if config.picture_words is not None:
            self.frames = WordFrames(config.picture_words, tokenizer, config.backbone.vocab_size, limits or ImageLimits())
        self.makes: dict[str, bool] = {kind: hand.feeds_back for kind, hand in config.hands.items()}
        """Kinds of media that an answer may hold, and whether the model looks at what it makes."""
        self._drawn = ("image",) if self.frames else ()
        self.makes |= dict.fromkeys(self._drawn, False)
        self._mrope: bool = config.backbone.mrope
        self.box_format: BoxFormat | None = find_box_format(config.boxes) if config.boxes else None
        self._frame = config.text_frame
        self._required: list[Callable[[Example], None]] = []
        self.readers: dict[str, Callable[[Wanted], Any]] = {}
        """How an answer's media are read where pixels are, for what learns from them: what comes of it is `Wanted.medium`."""
        self.splits_answers = False
        """Whether every answer of a Sample becomes an Example of its own (`processing/answers.py`)."""
        self.weighs_answers = True
        """Whether the several answers of a question are learned, each with its weight."""
        self.shelf: Shelf | None = None
        """Where features of pictures may be found; such pictures are not decoded."""
        self._lanes = Lanes(config, tokenizer, self.limits)

    def with_template(self, name: str | None) -> Processor:
        """The same Processor with another chat template, if one is named, and without what a stage requires or reads."""
        other = copy(self)
        other._required, other.readers = [], {}
        if name is not None:
            other.template = choose_template(name, self.tokenizer)
            other.stop_ids = stop_ids(other.template, self.tokenizer)
        return other

    def require(self, check: Callable[[Example], None]) -> None:
        """Have every further Example checked: what a stage's objective cannot use is then an
        error of its row, found where rows are named and skipped.

        Args:
            check: raises a DataError for an Example that cannot be used.
        """
        self._required.append(check)

    def encode(
        self,
        sample: Sample,
        *,
        answer_next: bool = False,
        max_length: int | None = None,
        augmentation: Augmentation | None = None,
        only_last: bool = False,
    ) -> Example:
        """Make an Example.

        Args:
            answer_next: end with the opening of an assistant turn; of separate turns, only
                the last question is asked.
            max_length: cut longer conversations at the end; a medium is dropped whole
                rather than cut, and so are separate turns behind the first.
            augmentation: change pictures this way, for training.
            only_last: of the answers only one in the last message is learned.

        Raises:
            DataError: a medium cannot be decoded, nothing to learn is left after cutting,
                separate turns are malformed, or a requirement is not met. A part that the
                model does not take is one too, because a row of data is at fault; in a prompt
                it is a ConfigError.
        """
        media = self._media(sample, augmentation, decoded=True)
        return self._example(media, max_length, answer_next=answer_next, only_last=only_last)

    def measure(
        self,
        sample: Sample,
        *,
        max_length: int | None = None,
        augmentation: Augmentation | None = None,
        only_last: bool = False,
    ) -> Example:
        """The Example that `encode` makes for training, but without pixels: pictures count by the
        sizes in their headers.

        Raises:
            DataError: as `encode`, except for what only decoding finds.
        """
        media = self._media(sample, augmentation, decoded=False)
        return self._example(media, max_length, answer_next=False, only_last=only_last)

    def _takes(self) -> list[str]:
        """Types of parts that the model takes, beside text."""
        takes = sorted(self._lanes.kinds | ({"image"} if self._reads_words else set[str]()))
        return takes + [*(PLACE_KINDS if self.box_format else ()), *(("video",) if self.config.video else ())]

    def _media(self, sample: Sample, augmentation: Augmentation | None, *, decoded: bool) -> SampleMedia:
        seen = with_frames(sample.silent, self.config.video, self.makes, self.limits)
        return SampleMedia(seen, augmentation, decoded=decoded, kinds=self.makes)

    def _example(self, media: SampleMedia, max_length: int | None, *, answer_next: bool, only_last: bool) -> Example:
        sample = media.sample
        if not answer_next:
            check_parts(sample, self._takes(), self.makes)
        drafts: list[Draft] = []
        for messages in sample.conversations(answer_next=answer_next):
            draft = Draft()
            pieces = render(messages, self.template, answer_next=answer_next, only_last=only_last, made=self.makes, drawn=self._drawn)
            self._write(draft, pieces, media)
            drafts.append(draft)
        draft = share_prefix(drafts, max_length)
        if self._frame is not None:
            frame_text(draft, self._frame, self.tokenizer.pad_id, max_length)
            max_length = None
        example = finish(draft, sample.id, self.config, max_length)
        example.seen = tuple(media.seen())
        for check in self._required:
            check(example)
        return example

    def _write(self, draft: Draft, pieces: Iterable[Piece], media: SampleMedia) -> None:
        """Fill a Draft; media that are not made yet are decoded and added."""
        begin = [] if not self.template.bos or self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        if not self.template.bos_behind:
            draft.put(begin, learn=False)
            begin = []
        text, learn = "", False
        for piece in self._with_places(pieces, draft, media):
            words = self._as_words(piece)
            if piece.kind == "made" and isinstance(piece.value, Part) and piece.value.type not in self.signals and not words:
                # A voice says what is written there already; a mask of a box takes no token.
                if piece.value.type == "mask":
                    draft.wanted.append(self._wanted(piece.value, draft, media, 0))
                continue
            if begin and piece.kind != "media":
                draft.put(begin, learn=False)
                begin = []
            # Neighbouring text is tokenised together, except across the learn boundary,
            # where training must split words exactly as a prompt does.
            if piece.kind == "text" and isinstance(piece.value, str):
                if piece.learn != learn and text:
                    draft.put(self._ids(text), learn)
                    text = ""
                text, learn = text + piece.value, piece.learn
                continue
            if text:
                draft.put(self._ids(text), learn)
                text = ""
            if words:
                self._put_words(draft, piece, media)
            elif piece.kind == "made" and isinstance(piece.value, Part):
                self._put_made(draft, piece.value, media, learn=piece.learn)
            elif isinstance(piece.value, Part):
                self._put_medium(draft, piece.value, media)
            else:
                draft.put([control_id(piece.value, self.tokenizer)], piece.learn)
        if text:
            draft.put(self._ids(text), learn)
        draft.put(begin, learn=False)

    def _put_made(self, draft: Draft, part: Part, media: SampleMedia, *, learn: bool) -> None:
        """The tokens of a medium in an answer; what the model reads of it stands between its two signals."""
        hand = self.config.hands[part.type]
        ids = made_ids(part, media.sample, hand, self.tokenizer)
        inside = self._lanes.tile(part.type, TilePlan()).tokens if hand.feeds_back else 0
        draft.wanted.append(self._wanted(part, draft, media, len(ids) + inside))
        draft.put(ids[:1] if hand.feeds_back else ids, learn)
        if hand.feeds_back:
            self._put_medium(draft, part, media)
            draft.put(ids[1:], learn=False)

    def _wanted(self, part: Part, draft: Draft, media: SampleMedia, count: int) -> Wanted:
        """What is known of a medium in an answer; what is learned of it itself is read where pixels are, too, and a picture may be an edit."""
        wanted = wanted_of(part, media.sample, (len(draft.ids), count))
        before = [one for _, one in media_seen(media.sample, self.makes)][: len(draft.spans)]
        shown = [one for one in before if one.type == "image"]
        if media.decoded and part.type in self.readers:
            wanted = replace(wanted, medium=self.readers[part.type](wanted))
        if part.type == "image" and shown:
            return replace(wanted, picture=shown[-1].value)
        if part.type != "mask" or not media.decoded:
            return wanted
        seen = media.seen(len(draft.spans))
        placed = place_mask(part, seen, root=media.sample.root, limits=self.limits)
        return replace(wanted, medium=placed.mask, picture=shown[placed.picture - 1].value)

    def _ids(self, text: str) -> list[int]:
        bare = self._frame is not None and self._frame.bare
        return self.tokenizer.encode(bare_text(text) if bare else text)

    def _with_places(self, pieces: Iterable[Piece], draft: Draft, media: SampleMedia) -> Iterator[Piece]:
        """The pieces with places written out; a piece is drawn when those before it are in the
        Draft, so that their pictures are known."""
        for piece in pieces:
            if piece.kind != "places" or not isinstance(piece.value, Part):
                yield piece
            elif self.box_format is None:
                raise ConfigError(
                    "boxes or points in a conversation for a model that takes none",
                    where="model.boxes",
                    fix=f"name the format it was trained with: {', '.join(BOX_FORMATS)}",
                )
            else:
                pictures = media.seen(len(draft.spans))
                yield from place_pieces(piece.value, pictures, self.box_format, self.tokenizer, learn=piece.learn)

    @property
    def _reads_words(self) -> bool:
        """Whether pictures in front of an answer are tokens, too."""
        return self.frames is not None and self.frames.shape.shared

    def _as_words(self, piece: Piece) -> bool:
        """Whether it is a picture that becomes tokens."""
        here = self._reads_words if piece.kind == "media" else piece.kind == "made" and self.frames is not None
        return here and isinstance(piece.value, Part) and piece.value.type == "image"

    def prompt(self, messages: tuple[Message, ...], root: Path | None = None) -> Example:
        """The Example of a conversation that the model is to continue."""
        return self.encode(Sample(messages=messages, root=root), answer_next=True)

    def _put_words(self, draft: Draft, piece: Piece, media: SampleMedia) -> None:
        """A picture as tokens: its markers, and places for the words of its codes, learned like text in an answer."""
        frames, part = cast(WordFrames, self.frames), cast(Part, piece.value)
        if len(draft.spans) == len(media.made):
            media.made.append(Inputs(*prepared(part, frames.pictures, media, None), drawn=piece.kind == "made"))
        made = media.made[len(draft.spans)].made
        draft.pixels.setdefault(CODES, []).append(made.pixels_NCHW)
        draft.plans.setdefault(CODES, []).append(made.plan)
        tokens, start = frames.frame(made.plan.patches).tokens, len(draft.ids)
        draft.codes += [start + i for i, token in enumerate(tokens) if token is None]
        draft.spans.append((CODES, start, start + len(tokens)))
        draft.put([self._placeholder if token is None else token for token in tokens], piece.learn)

    def _put_medium(self, draft: Draft, part: Part, media: SampleMedia) -> None:
        if len(draft.spans) == len(media.made):
            media.made.append(self._lanes.inputs(part, media, self.shelf))
        kind, inputs = part.type, media.made[len(draft.spans)]
        made, plan = inputs.made, inputs.made.plan
        tile = self._lanes.tile(kind, plan)
        draft.pixels.setdefault(kind, []).append(made.pixels_NCHW)
        draft.plans.setdefault(kind, []).append(plan)
        if self.shelf is not None:
            draft.kept.setdefault(kind, []).append(made.kept)
        if made.details_NCHW is not None:
            draft.details.setdefault(kind, []).append(made.details_NCHW)
        if inputs.text is not None:
            draft.texts.setdefault(kind, []).append(inputs.text)
        start = len(draft.ids)
        if self._fills_slots:
            placeholders = [self._placeholder] * plan.num_tokens(tile)
            if self._mrope:
                draft.maps.append(plan.token_map(tile))
        else:
            placeholders = self._markers
            if len(placeholders) > 1 and placeholders[0] == placeholders[-1]:
                # A fence: two media side by side share the one between them, and the one in front
                # still sees what came before (IDEFICS).
                if not draft.spans or draft.spans[-1][2] < start:
                    draft.put(placeholders[:1], learn=False)
                placeholders, start = placeholders[1:], len(draft.ids)
        draft.spans.append((kind, start, start + len(placeholders)))
        draft.put(placeholders, learn=False)
