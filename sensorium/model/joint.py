"""The two parts of a model whose pictures and texts meet in one space.

Shape legend: B rows, T tokens, N texts or pairs, M pictures, Q queries, J width of the space, K tokens of a
picture, E their width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, cast

from torch import Tensor, nn

from sensorium.backbones.cross_med import CrossMed
from sensorium.backbones.cross_tower import CrossTower
from sensorium.backbones.query_tower import QueryTower
from sensorium.backbones.text_tower import TextTower
from sensorium.core.batch import Batch, Features
from sensorium.core.errors import ConfigError
from sensorium.fusion.apart import Apart
from sensorium.fusion.cross_attention import CrossAttention
from sensorium.fusion.match import Match
from sensorium.fusion.query_match import QueryMatch
from sensorium.nn.cross_media import CrossMedia

STAGE_1 = "train it as BLIP-2's first stage: recipe blip2-represent"


class JointModel(Protocol):
    """As much of a model as is asked here."""

    @property
    def backbone(self) -> nn.Module: ...
    @property
    def fusion(self) -> nn.Module: ...


class JointTower(Protocol):
    """What reads texts: each alone."""

    def embed(self, ids_BT: Tensor) -> Tensor: ...
    def teacher_forced(self, embeds_BTD: Tensor, batch: Batch) -> Tensor: ...
    def pooled(self, hidden_BTD: Tensor, batch: Batch) -> Tensor: ...


class Matcher(Protocol):
    """What reads texts over pictures, too."""

    def matches(self, batch: Batch, media: CrossMedia) -> Tensor:
        """Scores of no match and of a match for every text in reading order, (N, 2)."""
        ...


def joint_parts(
    model: JointModel,
) -> tuple[TextTower | CrossTower | QueryTower, Apart | Match | QueryMatch]:
    """The text tower, and what scores its embeddings.

    Raises:
        ConfigError: the model has no space that pictures and texts share.
    """
    tower, scorer = model.backbone, model.fusion
    reads = isinstance(tower, TextTower | CrossTower | QueryTower)
    if not reads or not isinstance(scorer, Apart | Match | QueryMatch):
        raise ConfigError(
            "a model that writes text, where pictures and texts are to be compared",
            expected="backbone text_tower with fusion apart, cross_tower with match, or query_tower with query_match",
            where="model",
        )
    return tower, scorer


def scaled_parts(model: JointModel) -> tuple[TextTower, Apart]:
    """The parts of a model whose scores have a factor that learns.

    Raises:
        ConfigError: the model has none.
    """
    tower, apart = joint_parts(model)
    if not isinstance(tower, TextTower) or not isinstance(apart, Apart):
        raise ConfigError(
            "a contrastive stage for a model that reads pictures and texts together",
            expected="backbone text_tower with fusion apart",
            fix="give objective.temperature, which divides cosines" if isinstance(tower, QueryTower) else "use objective: matching",
        )
    return tower, apart


def queried_parts(model: JointModel) -> tuple[QueryTower, QueryMatch]:
    """The parts of a model whose scores are bare cosines, which an objective's temperature divides.

    Raises:
        ConfigError: the model has others.
    """
    tower, scorer = joint_parts(model)
    if not isinstance(tower, QueryTower) or not isinstance(scorer, QueryMatch):
        raise ConfigError("a temperature for scores that have a factor of their own", where="objective.temperature", expected="none",
                          fix="leave it out, or compare by a Q-Former: backbone query_tower with fusion query_match")  # fmt: skip
    return tower, scorer


def matching_parts(model: JointModel) -> tuple[CrossTower, Match]:
    """The parts of a model that reads pictures and texts together.

    Raises:
        ConfigError: the model does not.
    """
    tower, scorer = joint_parts(model)
    if not isinstance(tower, CrossTower) or not isinstance(scorer, Match):
        raise ConfigError(
            "matching with a model that only compares vectors"
            if isinstance(tower, TextTower)
            else "objective matching with a Q-Former",
            expected="backbone cross_tower with fusion match",
            fix=STAGE_1 if isinstance(tower, QueryTower) else "use objective: contrastive, or `similarity`",
        )
    return tower, scorer


def reading_parts(model: JointModel) -> tuple[Matcher, CrossAttention]:
    """What reads texts over pictures, and what hands it the pictures.

    Raises:
        ConfigError: the model only compares vectors.
    """
    tower, scorer = joint_parts(model)
    if isinstance(tower, TextTower) or not isinstance(scorer, CrossAttention):
        raise ConfigError(
            "a model that does not read pictures and texts together",
            expected="backbone cross_tower, as BLIP has it, or query_tower, as BLIP-2",
            fix="use `similarity`; on the command line leave --together out",
        )
    return tower, scorer


def writing_part(model: JointModel) -> CrossMed:
    """The backbone that reads texts and writes them.

    Raises:
        ConfigError: the model has another.
    """
    if not isinstance(model.backbone, CrossMed):
        raise ConfigError(
            f"writing beside what is compared, by a {type(model.backbone).__name__}",
            expected="backbone cross_med, which reads texts and writes them",
            where="model.backbone",
        )
    return model.backbone


def written_over(
    model: JointModel, batch: Batch, ids_NT: Tensor, media_NKE: Tensor
) -> Tensor:
    """Scores of each next word given the picture and the words before it, (N, T, V).

    Args:
        batch: one text in each row.
        ids_NT: of the texts, with the mark that begins what is written.
        media_NKE: the tokens of the picture of each row.
    """
    med = writing_part(model)
    sees_NTK = (batch.segments_BT > 0)[:, :, None].expand(-1, -1, media_NKE.shape[1])
    return med.written(med.embed(ids_NT), batch, CrossMedia(media_NKE, sees_NTK))


def picture_vectors(model: JointModel, features: Features) -> Tensor:
    """The vector of each picture, (M, J), or of each of its queries, (M, Q, J)."""
    tower, scorer = joint_parts(model)
    if isinstance(tower, QueryTower):
        return tower.pictures(features)
    return cast(Apart | Match, scorer).pictures(features)


def text_vectors(tower: JointTower, batch: Batch) -> Tensor:
    """One vector of every text in reading order, (N, J); pictures beside them are not seen."""
    hidden_BTD = tower.teacher_forced(tower.embed(batch.input_ids_BT), batch)
    return tower.pooled(hidden_BTD, batch)


def read_together(
    model: JointModel, batch: Batch, media_NKE: Tensor, pairs: tuple[Tensor, Tensor]
) -> Tensor:
    """Scores (N, 2) of no match and of a match for texts read over pictures.

    Args:
        batch: one text in each row.
        media_NKE: the tokens of the picture of each row.
        pairs: rows of the texts, and of the pictures, (N,) each.
    """
    tower, _ = matching_parts(model)
    texts_N, pictures_N = pairs
    chosen = dataclasses.replace(
        batch,
        input_ids_BT=batch.input_ids_BT[texts_N],
        segments_BT=batch.segments_BT[texts_N],
        positions_BT=batch.positions_BT[texts_N],
    )
    sees_NTK = (chosen.segments_BT > 0)[:, :, None].expand(-1, -1, media_NKE.shape[1])
    media = CrossMedia(media_NKE[pictures_N], sees_NTK)
    return tower.matched(tower.teacher_forced(tower.embed(chosen.input_ids_BT), chosen, media), chosen)
