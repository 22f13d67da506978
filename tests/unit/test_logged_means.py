"""What a step logs of its loss: means over the passes that have something to say of it."""

from __future__ import annotations

import pytest

from sensorium.training.distributed.tally import Tally, mean_of


def test_a_pass_without_media_does_not_count_for_them() -> None:
    with_media, without, nothing = ({"words": (1.0, 30.0), "condition.image": (6.0, 30.0)}, {"words": (3.0, 10.0)}, {"words": (9.0, 0.0)})
    batch = mean_of([with_media, without, nothing])
    assert batch == {"words": (pytest.approx(1.5), 40.0), "condition.image": (6.0, 30.0)}
    # Ranks' shares of a batch are averaged like its passes, and arrive as lists.
    assert mean_of([{"words": [2.0, 10.0]}, batch])["words"] == (pytest.approx(1.6), 50.0)  # type: ignore[dict-item]
    assert mean_of([nothing, {"words": (1.0, 0.0)}]) == {"words": (5.0, 0.0)}
    step = Tally(batches=[batch, {"words": (2.5, 1.0)}, {"words": (2.0, 9.0), "condition.image": (2.0, 9.0)}])
    assert step.means() == {"words": pytest.approx(2.0), "condition.image": pytest.approx(4.0)}
    assert Tally().means() == {}
