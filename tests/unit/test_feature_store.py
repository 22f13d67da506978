"""The feature store: what it finds is what was made, and it knows when it may not be asked."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from test_model import make
from typer.testing import CliRunner

from sensorium.api import Model
from sensorium.cli.main import app
from sensorium.core.batch import Example, Features
from sensorium.core.sample import Sample, parse_sample
from sensorium.encoders import ENCODERS
from sensorium.features import room as room_module
from sensorium.features.fingerprint import fingerprint
from sensorium.features.room import GRACE_LOOKUPS, Room, clear, usage
from sensorium.features.store import FeatureStore, StoreOptions, storable, used_by
from sensorium.features.tower_store import TowerStore
from sensorium.features.writer import Writer
from sensorium.media.augment import Augmentation
from sensorium.media.image import load_image
from sensorium.media.limits import ImageLimits
from sensorium.model.device import media_to_device
from sensorium.processing import pictures as pictures_module
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor

SIZES = ((30, 40), (64, 20), (31, 90))


def picture(folder: Path, number: int) -> Path:
    """A file that is there already, or a new one."""
    path = folder / f"{number}.png"
    if not path.exists():
        rng = np.random.default_rng(number)
        height, width = SIZES[number % len(SIZES)]
        PILImage.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def sample(*pictures: Any, boxes: bool = False) -> Sample:
    content: list[Any] = [{"type": "image", "image": p} for p in pictures]
    if boxes:
        content.append({"type": "boxes", "boxes": [[2, 3, 9, 11]]})
    content.append({"type": "text", "text": "what?"})
    return parse_sample({"messages": [{"role": "user", "content": content},
                                      {"role": "assistant", "content": "this"}]})  # fmt: skip


def opened(model: Model, root: Path, **options: Any) -> FeatureStore:
    kinds, _ = storable(model.network)
    return FeatureStore(model.network, kinds, StoreOptions(root, **options))


@torch.no_grad()
def features(model: Model, *examples: Example) -> Features:
    batch = collate([[e] for e in examples], model.tokenizer.pad_id)
    media = media_to_device(batch.media, model.network.device)
    return model.network.encode("image", media["image"])


def alike(one: Example, two: Example) -> None:
    """All but what only a hit or only a miss has."""
    for field in fields(Example):
        if field.name != "media":
            assert getattr(one, field.name) == getattr(two, field.name), field.name
    assert one.media.keys() == two.media.keys()
    for kind, media in one.media.items():
        assert media.plans == two.media[kind].plans
        assert media.texts == two.media[kind].texts


@pytest.mark.parametrize("name", ["splice", "anyres", "native", "gated"])
def test_a_hit_is_the_example_and_the_features_that_were_made(name: str, tmp_path: Path) -> None:
    model = make(name, "qwen2_vl" if name == "native" else "llama")
    rows = [sample(picture(tmp_path, 0)), sample(picture(tmp_path, 1), picture(tmp_path, 2))]
    plain = [model.processor.encode(row) for row in rows]
    expected = features(model, *plain)
    for number in range(2):
        store = opened(model, tmp_path / "store")
        with used_by(model.network, model.processor, store):
            made = [model.processor.encode(row) for row in rows]
            for one, two in zip(plain, made, strict=True):
                alike(one, two)
                pixels = two.media["image"].pixels_NCHW
                assert torch.equal(pixels, one.media["image"].pixels_NCHW) if not number else not len(pixels)
            found = features(model, *made)
            assert found.grids == expected.grids
            assert torch.equal(found.values_ND, expected.values_ND)
        assert store.towers["image"].hits == 3 * number
        assert store.writer.written == 3 * (1 - number)


def test_found_and_new_pictures_of_a_batch_keep_their_order(tmp_path: Path) -> None:
    model = make("anyres")
    store = opened(model, tmp_path / "store")
    with used_by(model.network, model.processor, store):
        features(model, model.processor.encode(sample(picture(tmp_path, 1))))
    rows = [sample(picture(tmp_path, 0), picture(tmp_path, 1)), sample(picture(tmp_path, 2))]
    expected = features(model, *[model.processor.encode(row) for row in rows])
    store = opened(model, tmp_path / "store")
    with used_by(model.network, model.processor, store):
        found = features(model, *[model.processor.encode(row) for row in rows])
    assert (store.towers["image"].hits, store.writer.written) == (1, 2)
    assert found.grids == expected.grids
    torch.testing.assert_close(found.values_ND, expected.values_ND, atol=1e-6, rtol=1e-6)


def test_a_hit_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("splice")
    row = sample(picture(tmp_path, 0))
    store = opened(model, tmp_path / "store")
    with used_by(model.network, model.processor, store):
        features(model, model.processor.encode(row))
    with used_by(model.network, model.processor, opened(model, tmp_path / "store")):
        monkeypatch.setattr(pictures_module, "load_image", None)
        assert model.processor.encode(row).media["image"].kept[0] is not None
        # The content is the key, not the name; another content is decoded.
        copy = tmp_path / "copy.bin"
        copy.write_bytes(picture(tmp_path, 0).read_bytes())
        assert model.processor.encode(sample(copy.read_bytes())).media["image"].kept[0] is not None
        with pytest.raises(TypeError, match="NoneType"):
            model.processor.encode(sample(picture(tmp_path, 1)))


def test_views_are_kept_apart_and_alike(tmp_path: Path) -> None:
    """A hit does not move the generator, and yet the next picture of the Sample is seen as it would have been."""
    model = make("anyres")
    row = sample(picture(tmp_path, 0), picture(tmp_path, 1))

    def encoded(seed: int, one: Sample = row) -> Example:
        return model.processor.encode(one, augmentation=Augmentation(random.Random(seed), True, seed))

    plain = {seed: encoded(seed) for seed in range(6)}
    expected = {seed: features(model, example) for seed, example in plain.items()}
    with used_by(model.network, model.processor, opened(model, tmp_path / "store")):
        for seed in (0, 1, 2):
            features(model, encoded(seed))
    with used_by(model.network, model.processor, opened(model, tmp_path / "store")) as _:
        for seed, example in plain.items():
            made = encoded(seed)
            alike(example, made)
            assert bool(len(made.media["image"].pixels_NCHW)) == (seed > 2)
            assert torch.equal(features(model, made).values_ND, expected[seed].values_ND)
        # A view of another seed, and pictures that are new each time.
        assert encoded(9).media["image"].kept != encoded(0).media["image"].kept
        endless = model.processor.encode(row, augmentation=Augmentation(random.Random(0), True))
        assert not any(endless.media["image"].kept)


def test_transparent_pictures_in_memory_are_told_apart(tmp_path: Path) -> None:
    """On white they look alike, on any other ground they do not."""
    model = make("splice")
    clear_one = PILImage.new("RGBA", (40, 40), (255, 255, 255, 0))
    white = PILImage.new("RGBA", (40, 40), (255, 255, 255, 255))
    seeds = [seed for seed in range(40) if random.Random(seed).random() >= 0.5]
    with used_by(model.network, model.processor, opened(model, tmp_path)):
        for seed in seeds[:4]:
            keys = {
                model.processor.encode(
                    sample(one), augmentation=Augmentation(random.Random(seed), False, seed)
                ).media["image"].kept[0].key  # pyright: ignore[reportOptionalMemberAccess]
                for one in (clear_one, white)
            }  # fmt: skip
            assert len(keys) == 2


def test_what_is_done_to_a_picture_is_part_of_its_key(tmp_path: Path) -> None:
    models = {"size": make("splice"), "tiles": make("anyres")}
    keys: set[bytes] = set()
    for model in models.values():
        processors = [model.processor, Processor(model.network.config, model.tokenizer, limits=ImageLimits(max_side_px=99))]
        for processor in processors:
            with used_by(model.network, processor, opened(model, tmp_path / "store")):
                for row in (sample(picture(tmp_path, 0)), sample(picture(tmp_path, 0), picture(tmp_path, 1))):
                    kept = processor.encode(row).media["image"].kept[0]
                    assert kept is not None
                    keys.add(kept.key)
    assert len(keys) == 4


def test_layouts_of_one_picture_are_kept_apart(tmp_path: Path) -> None:
    """AnyRes lays a lone picture out in tiles, and one among others as a square."""
    model = make("anyres")
    lane = model.network.config.lane("image")
    resolution = lane.resolution.model_copy(update={"several": "square"})
    config = model.network.config.model_copy(update={"lanes": {"image": lane.model_copy(update={"resolution": resolution})}})
    processor = Processor(config, model.tokenizer)
    rows = [sample(picture(tmp_path, 1)), sample(picture(tmp_path, 1), picture(tmp_path, 2))]
    plain = [processor.encode(row) for row in rows]
    assert plain[0].media["image"].plans[0] != plain[1].media["image"].plans[0]
    expected = [features(model, one).values_ND for one in plain]
    written: list[int] = []
    for _ in range(3):
        store = opened(model, tmp_path / "store")
        with used_by(model.network, processor, store):
            for one, row, values_ND in zip(plain, rows, expected, strict=True):
                made = processor.encode(row)
                alike(one, made)
                assert torch.equal(features(model, made).values_ND, values_ND)
        written.append(store.writer.written)
    # The second layout gets a key of its own as soon as the first has been written.
    assert written in ([2, 1, 0], [3, 0, 0])


def test_the_tower_is_part_of_the_place() -> None:
    model = make("splice").network
    before = fingerprint(model, "image", "fp32")
    assert fingerprint(model, "image", "fp32") == before
    assert fingerprint(model, "image", "bf16") != before
    with torch.no_grad():
        next(model.encoders["image"].parameters()).view(-1)[0] += 1
    assert fingerprint(model, "image", "fp32") != before


def test_where_weights_came_from_is_none_of_it() -> None:
    from sensorium.core.weights import HubSource

    model = make("splice").network
    before = fingerprint(model, "image", "fp32")
    lane = model.config.lane("image")
    encoder = lane.encoder.model_copy(update={"weights": (HubSource(id="a/b"),)})
    model.config = model.config.model_copy(update={"lanes": {"image": lane.model_copy(update={"encoder": encoder})}})
    assert fingerprint(model, "image", "fp32") == before


def test_half_rounds_on_the_first_use_too(tmp_path: Path) -> None:
    model = make("splice")
    example = model.processor.encode(sample(picture(tmp_path, 0)))
    exact = features(model, example).values_ND
    found: list[torch.Tensor] = []
    for _ in range(2):
        with used_by(model.network, model.processor, opened(model, tmp_path / "store", half=True)):
            found.append(features(model, model.processor.encode(sample(picture(tmp_path, 0)))).values_ND)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], exact.half().float())
    assert found[0].dtype == exact.dtype


def test_bf16_is_kept_as_bf16(tmp_path: Path) -> None:
    model = make("splice")
    model.network.encoders.to(torch.bfloat16)
    found: list[torch.Tensor] = []
    for _ in range(2):
        with used_by(model.network, model.processor, opened(model, tmp_path / "store", number_format="bf16")):
            found.append(features(model, model.processor.encode(sample(picture(tmp_path, 0)))).values_ND)
    assert found[0].dtype == found[1].dtype == torch.bfloat16
    assert torch.equal(found[0], found[1])


def test_flipped_bytes_are_computed_anew_and_found_again(tmp_path: Path) -> None:
    model = make("splice")
    rows = [sample(picture(tmp_path, k)) for k in range(6)]

    def run() -> tuple[FeatureStore, list[torch.Tensor]]:
        store = opened(model, tmp_path / "store")
        with used_by(model.network, model.processor, store):
            return store, [features(model, model.processor.encode(row)).values_ND for row in rows]

    _, expected = run()
    (file,) = (tmp_path / "store").rglob("*.bin")
    content = bytearray(file.read_bytes())
    for at in (len(content) // 12, len(content) // 2):
        content[at] ^= 4
    file.write_bytes(content)
    store, found = run()
    assert (store.towers["image"].damaged, store.writer.written) == (2, 2)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    # The damaged entries are older than the new ones, or are passed over again: nothing is written twice.
    store, found = run()
    assert store.writer.written == 0
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_answers_do_not_depend_on_the_store(tmp_path: Path) -> None:
    model = make("splice")
    asked = [{"role": "user", "content": [{"type": "image", "image": str(picture(tmp_path, 0))},
                                          {"type": "text", "text": "what?"}]}]  # fmt: skip
    plain = model.respond(asked, max_tokens=12)
    for number in range(2):
        store = model.keep_features(tmp_path / "store")
        assert store is not None
        assert model.respond(asked, max_tokens=12) == plain
        assert store.towers["image"].hits == number
        store.close()
        # A store that was closed finds nothing, and harms nobody.
        assert model.respond(asked, max_tokens=12) == plain


def test_second_encoders_switch_it_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make("visual_expert_detail")
    assert model.keep_features(tmp_path) is None
    assert "second encoder" in capsys.readouterr().err


def test_a_slow_disk_drops_and_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from sensorium.features import writer as writer_module

    go = threading.Event()
    real = TowerStore.append
    monkeypatch.setattr(TowerStore, "append", lambda *args: (go.wait(30), real(*args))[1])
    monkeypatch.setattr(writer_module, "QUEUE_BYTES", 1)
    model = make("splice")
    store = opened(model, tmp_path / "store")
    with used_by(model.network, model.processor, store):
        for k in range(4):
            features(model, model.processor.encode(sample(picture(tmp_path, k))))
        assert store.writer.dropped == 3
        go.set()
    assert store.writer.written == 1


def test_a_folder_that_cannot_be_written_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TowerStore, "append", refuse)
    model = make("splice")
    store = opened(model, tmp_path / "store")
    with used_by(model.network, model.processor, store):
        for k in range(3):
            features(model, model.processor.encode(sample(picture(tmp_path, k))))
    assert store.writer.written == 0
    assert capsys.readouterr().err.count("No space left") == 1


def fill(root: Path, folder: str, count: int, *, size: int = 1000) -> TowerStore:
    store = TowerStore(root / folder, shard_bytes=size)
    for k in range(count):
        store.append(f"{folder}{k}".encode().ljust(32), b" " * 64, memoryview(bytes(size)))
    store.close()
    return store


def test_the_longest_unused_shards_of_others_go_first(tmp_path: Path) -> None:
    import os

    for number, name in enumerate(("v1-old", "v1-older", "v1-mine")):
        fill(tmp_path, name, 3)
        for file in (tmp_path / name).iterdir():
            os.utime(file, (1000 - number, 1000 - number))
    room = Room(tmp_path, sum(one.size_bytes for one in usage(tmp_path)))
    mine = tmp_path / "v1-mine"
    assert room.make(1200, mine, 0)
    left = {one.folder.name: len(list(one.folder.glob("*.bin"))) for one in usage(tmp_path)}
    assert left == {"v1-mine": 3, "v1-old": 3, "v1-older": 1}
    # What is one's own is spared until the run has had time to use it.
    assert not Room(tmp_path, 3500).make(1200, mine, 0)
    assert len(list(mine.glob("*.bin"))) == 3
    assert Room(tmp_path, 3500).make(1200, mine, GRACE_LOOKUPS)
    assert len(list(mine.glob("*.bin"))) == 2


def test_what_was_used_since_the_beginning_stays(tmp_path: Path) -> None:
    room = Room(tmp_path, 3000)
    fill(tmp_path, "v1-a", 3)
    assert not room.make(1000, tmp_path / "v1-b", GRACE_LOOKUPS)
    assert room.full
    assert len(list((tmp_path / "v1-a").glob("*.bin"))) == 3


def test_a_disk_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**30 + 10}))
    assert not Room(tmp_path, 2**40).make(11, tmp_path, 0)
    assert Room(tmp_path, 2**40).make(10, tmp_path, 0)


def test_a_full_store_stops_growing_and_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make("splice")
    one = features(model, model.processor.encode(sample(picture(tmp_path, 0)))).values_ND.nbytes
    store = opened(model, tmp_path / "store", limit_gb=2.5 * (one + 400) / 2**30)
    with used_by(model.network, model.processor, store):
        for k in range(6):
            features(model, model.processor.encode(sample(picture(tmp_path, k))))
    assert 1 <= store.writer.written <= 2
    assert store.writer.written + store.writer.dropped == 6
    assert sum(u.size_bytes for u in usage(tmp_path / "store")) < 2.5 * (one + 400) + 1000
    assert capsys.readouterr().err.count("is full") == 1


def test_cache_command_lists_and_empties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path))
    model = make("splice")
    store = model.keep_features()
    assert store is not None
    features(model, model.processor.encode(sample(picture(tmp_path, 0))))
    store.close()
    (tmp_path / "features" / "abcd" / "ab").mkdir(parents=True)
    (tmp_path / "features" / "abcd" / "ab" / "x.safetensors").write_bytes(bytes(100))
    runner = CliRunner()
    listed = json.loads(runner.invoke(app, ["cache", "--json"]).stdout)
    assert {one.get("encoder") for one in listed["towers"]} == {"vit", None}
    assert listed["bytes"] > 1000
    text = runner.invoke(app, ["cache"]).stdout
    assert "vit 32 px fp32" in text
    assert "older format" in text
    assert json.loads(runner.invoke(app, ["cache", "--clear", "--json"]).stdout)["freed_bytes"] == listed["bytes"]
    assert "0.0 MiB" in runner.invoke(app, ["cache"]).stdout


def test_clearing_spares_what_is_being_written(tmp_path: Path) -> None:
    fill(tmp_path, "v1-a", 2)
    living = TowerStore(tmp_path / "v1-a", shard_bytes=10**6)
    living.append(b"k" * 32, b" " * 64, memoryview(b"12345678"))
    clear(tmp_path)
    assert len(list((tmp_path / "v1-a").glob("*.bin"))) == 1
    living.close()
    clear(tmp_path)
    assert usage(tmp_path) == []


def test_looking_for_a_size_needs_no_torch() -> None:
    """The doctor runs where torch does not load."""
    import subprocess

    code = "import sys, sensorium.features.room; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("kind", ["vit", "clip", "siglip", "dinov2", "efficientnet_lite"])
def test_a_picture_does_not_depend_on_those_beside_it(kind: str) -> None:
    """Why a cached epoch equals an uncached one: but for rounding, since products of some processors' widest vectors depend on how many
    rows there are."""
    config = ENCODERS.find(kind).tiny()
    encoder = config.build().eval()
    size = config.preprocess().size_px
    pixels = torch.randint(0, 256, (17, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        whole = encoder(pixels).values_ND
        for count in (1, 3, 5, 16):
            part = encoder(pixels[:count]).values_ND
            torch.testing.assert_close(whole[: len(part)], part, atol=1e-5, rtol=1e-5, msg=f"{count} pictures")


def test_a_writer_ends_with_its_program(tmp_path: Path) -> None:
    writer = Writer(Room(tmp_path, 10))
    writer.close()
    writer.close()
    assert load_image(np.zeros((2, 2, 3), dtype=np.uint8)).shape.height_px == 2
