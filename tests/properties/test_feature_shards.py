"""Shards of the feature store: whatever is done to the files, a record is found as it was written or not at all."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sensorium.core.batch import Features, Grid, Kept, MediaShape
from sensorium.core.hashing import stable_int
from sensorium.features.record import raw_bytes, write_head
from sensorium.features.room import sweep
from sensorium.features.shard import INDEX, LINE_BYTES, Place, read_lines, trim, write_line
from sensorium.features.tower_store import TowerStore

KILLS = 15


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def values_of(number: int) -> torch.Tensor:
    """What is written under a key follows from it, so that any reader can check it."""
    generator = torch.Generator().manual_seed(stable_int("record", number))
    rows = 1 + number % 5
    return torch.randn(rows, 8, generator=generator)


def append(store: TowerStore, number: int) -> None:
    values_ND = values_of(number)
    kept = Kept(key_of(number), MediaShape(3 + number, 4), f"plan {number}")
    features = Features(values_ND, (Grid(1, len(values_ND)),))
    store.append(kept.key, write_head(kept, features, values_ND.dtype), raw_bytes(values_ND))


def right(number: int, found: Kept | None) -> bool:
    """Whether a record is the one that was written; none is right, too."""
    if found is None:
        return True
    assert found.features is not None
    return (
        torch.equal(found.features.values_ND, values_of(number))
        and found.shape == MediaShape(3 + number, 4)
        and found.plan == f"plan {number}"
    )


def found_in(folder: Path, numbers: range) -> set[int]:
    """Which records are there; all of those are right."""
    store = TowerStore(folder, shard_bytes=10**9)
    found = {n: store.find(key_of(n)) for n in numbers}
    store.close()
    assert all(right(n, one) for n, one in found.items())
    return {n for n, one in found.items() if one is not None}


def filled(folder: Path, count: int, shard_bytes: int = 10**9) -> None:
    store = TowerStore(folder, shard_bytes=shard_bytes)
    for number in range(count):
        append(store, number)
    store.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_never_read(data: st.DataObject) -> None:
    """Bytes flipped, files cut off or grown anywhere: what is left is right, and what was hit is gone alone."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        filled(folder, 12, shard_bytes=data.draw(st.sampled_from([500, 10**9])))
        # Names are random, so that places are drawn as shares.
        files = sorted((p for p in folder.iterdir() if p.stat().st_size), key=lambda p: (p.suffix, p.stat().st_mtime_ns))
        file = files[int(data.draw(st.floats(0, 0.999)) * len(files))]
        content = bytearray(file.read_bytes())
        at = int(data.draw(st.floats(0, 0.9999)) * len(content))
        way = data.draw(st.sampled_from(["flip", "cut", "grow"]))
        if way == "flip":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(content[:at] if way == "cut" else content + bytes(7) * (way == "grow"))
        left = found_in(folder, range(12))
        if way != "cut":
            assert len(left) >= 11
        # What is missing can be written again, beside whatever is there.
        store = TowerStore(folder, shard_bytes=10**9)
        for number in set(range(12)) - left:
            append(store, number)
        store.close()
        assert found_in(folder, range(12)) == set(range(12))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 2**31), max_size=4))
def test_rubbish_is_no_index(rubbish: bytes, numbers: list[int]) -> None:
    places = {key_of(n): Place(n, n + 1, 64, n) for n in numbers}
    whole = b"".join(write_line(key, place) for key, place in places.items())
    assert dict(read_lines(whole)) == places
    assert dict(read_lines(whole + rubbish[: LINE_BYTES - 1])) == places
    assert not list(read_lines(rubbish))


def writing_child(folder: Path, numbers: range, ready: Path | None = None) -> int:
    """A process that writes until it is killed."""
    child = os.fork()
    if child:
        return child
    try:
        store = TowerStore(folder, shard_bytes=2000)
        for number in numbers:
            append(store, number)
            if ready is not None:
                ready.touch()
        store.close()
        os._exit(0)
    except BaseException:
        os._exit(1)


def test_writers_killed_at_any_moment_leave_whole_records(tmp_path: Path) -> None:
    """Two at a time, in one folder; after each pair everything found is right, and what was found stays."""
    rng, before = random.Random(4), set[int]()
    for turn in range(KILLS):
        start = turn * 400
        children = [writing_child(tmp_path, range(start, start + 400)),
                    writing_child(tmp_path, range(start + 200, start + 600))]  # fmt: skip
        time.sleep(rng.uniform(0, 0.03))
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        now = found_in(tmp_path, range(start + 600))
        assert before <= now
        before = now
    assert len(before) > 50
    # Opening cut the tails off: every byte that is left belongs to a record.
    sweep(tmp_path, older_than_s=-1)
    for index in tmp_path.glob(f"*{INDEX}"):
        trim(index)
        ends = [p.start + p.length for _, p in read_lines(index.read_bytes())]
        assert index.with_suffix(".bin").stat().st_size == max(ends)
    assert {p.suffix for p in tmp_path.iterdir()} == {".bin", INDEX}


def test_two_living_writers_find_each_others_records(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    child = writing_child(tmp_path / "store", range(1000), ready)
    store = TowerStore(tmp_path / "store", shard_bytes=3000)
    for number in range(1000, 1400):
        append(store, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store._look()
    assert all(right(n, store.find(key_of(n))) for n in range(1400))
    assert store.hits == 1400
    store.close()
    assert found_in(tmp_path / "store", range(1400)) == set(range(1400))


def test_a_living_writers_shard_is_not_trimmed(tmp_path: Path) -> None:
    store = TowerStore(tmp_path, shard_bytes=10**9)
    append(store, 1)
    (index,) = tmp_path.glob(f"*{INDEX}")
    with index.with_suffix(".bin").open("ab") as stream:
        stream.write(b"half a record")
    size = index.with_suffix(".bin").stat().st_size
    other = TowerStore(tmp_path, shard_bytes=10**9)
    assert index.with_suffix(".bin").stat().st_size == size
    assert right(1, other.find(key_of(1)))
    assert other.hits == 1
    store.close()
    TowerStore(tmp_path, shard_bytes=10**9).close()
    assert index.with_suffix(".bin").stat().st_size < size


def test_a_failed_write_leaves_the_shard_as_it_was(tmp_path: Path) -> None:
    """The disk is full in the midst of a record, and has room again for the next."""
    import resource

    store = TowerStore(tmp_path, shard_bytes=10**9)
    append(store, 0)
    (index,) = tmp_path.glob(f"*{INDEX}")
    size = index.with_suffix(".bin").stat().st_size
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
        try:
            append(store, 4)
            raise AssertionError("the limit did not hold")
        except OSError:
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert index.with_suffix(".bin").stat().st_size == size
    append(store, 2)
    store.close()
    assert found_in(tmp_path, range(6)) == {0, 2}
