"""A model that processes divide trains as the whole one does, and its checkpoints are read by any number of them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.fsdp
import torch.distributed.tensor  # In the parent: no forked process needs to.  # noqa: F401
from PIL import Image
from safetensors.torch import load_file
from test_several_processes import END_S, on_processes, same, train, train_on

from sensorium.core.atomic import versions
from sensorium.core.errors import ConfigError
from sensorium.recipes import RECIPES
from sensorium.training import preflight
from sensorium.training.checkpoint import load_checkpoint
from sensorium.training.config import Recipe
from sensorium.training.distributed.ranks import joined
from sensorium.training.distributed.sharding import check_sharding
from sensorium.training.log import read_log
from sensorium.training.memory import Memory
from sensorium.training.shares import Share
from sensorium.training.stage_run import StageRun
from sensorium.training.trainer import Trainer

EYE = "stages.align.learns=[{part: encoders.image, lr: 0.001}, {part: projectors.image, lr: 0.001}]"
FORMS = {
    "eye": [EYE, "stages.instruct.accumulate=2", "stages.instruct.loss_per=sample"],
    "lora": ["model.adapter={rank: 2}", "stages.instruct.learns=[{part: adapter, lr: 0.02}]", "stages.instruct.recompute='on'",
             "model.backbone.arch.tie_word_embeddings=false"],
    # First the head alone, behind which no gradient goes on into the layers.
    "last": ["stages.align.learns=[{part: backbone, lr: 0.01, module: lm.lm_head}]", "model.backbone.arch.tie_word_embeddings=false",
             "stages.instruct.learns=[{part: backbone, lr: 0.001, last_blocks: 1}]", "stages.align.pack=true"],
}  # fmt: skip
"""What else is divided, or learns, or is passed through the model otherwise."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Rows of which one process gets pictures, the other one text, or none that is good."""
    folder = tmp_path_factory.mktemp("rows")
    Image.new("RGB", (40, 32), (90, 10, 10)).save(folder / "red.png")

    def row(image: str | None, answer: str) -> str:
        content: list[dict[str, str]] = [{"type": "image", "image": image}] if image else []
        return json.dumps({"messages": [{"role": "user", "content": [*content, {"type": "text", "text": "What?"}]},
                                        {"role": "assistant", "content": answer}]})  # fmt: skip

    pictures = ["red.png", None, None, "gone.png", None, "red.png", None]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(row(image, "a long answer " * (i + 1)) for i, image in enumerate(pictures)))
    return f"[{{kind: file, path: {path}, format: samples}}]"


def tiny(source: str, *overrides: str) -> Recipe:
    """Three rows for two processes, of which the first makes two passes and the second one or none."""
    each = [f"stages.{name}.{key}" for name in ("align", "instruct")
            for key in ("batch_size=3", "workers=0", "on_bad_row=skip", f"data={source}")]  # fmt: skip
    return RECIPES.find("tiny")().override([*each, "stages.align.steps=2", "stages.instruct.steps=3", *overrides])


@pytest.fixture(autouse=True, scope="module")
def several_passes() -> Any:
    """A machine in which one row has room at a time; nobody looks at curves here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "state_bytes", lambda *a, **k: 0)
        patch.setattr(preflight, "activation_bytes", lambda *_: 4000 << 20)
        patch.setattr(preflight, "memory_of", lambda device: Memory(3000 << 20, 3000 << 20))
        patch.setattr("sensorium.training.trainer.draw_curve", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def alone(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each form of run, by one process."""
    folder = tmp_path_factory.mktemp("alone")
    for name, overrides in FORMS.items():
        train(tiny(source, *overrides), folder / name)
    return folder


def together(world: int, work: Callable[[], None], folder: Path) -> None:
    for code, said in on_processes(world, work, folder / "said"):
        assert code == 0, said


def test_a_divided_model_trains_as_a_whole_one(alone: Path, source: str, tmp_path: Path) -> None:
    def work() -> None:
        with joined() as ranks:
            for name, overrides in FORMS.items():
                train_on(ranks, tiny(source, "shard=full", *overrides), tmp_path / name)

    together(2, work, tmp_path)
    for name in FORMS:
        same(alone / name, tmp_path / name)
    assert any(line.get("skipped_rows") for line in read_log(tmp_path / "eye" / "log.jsonl"))
    first, second = (bytes_in(tmp_path / "eye" / "checkpoint", rank) for rank in range(2))
    # The first one also holds the projector and what stands around the tower's blocks.
    assert 0 < second < first < 1.2 * second


def bytes_in(folder: Path, rank: int) -> int:
    return sum(t.numel() for kind in ("weights", "optimiser") for t in load_file(folder / f"{kind}.{rank}.safetensors").values())


def test_layers_gathered_in_bf16_learn_alike(source: str, tmp_path: Path) -> None:
    """But for layers with a LayerNorm, such as the tower's, on processors."""
    kept = [f"stages.{name}.{key}" for name in ("align", "instruct") for key in ("precision=bf16", "keep_precision=true")]
    recipe = tiny(source, "shard=full", *kept, EYE)
    train(recipe, tmp_path / "one")
    together(2, lambda: train(recipe, tmp_path / "two"), tmp_path)
    one, two = ([x["loss"] for x in read_log(tmp_path / name / "log.jsonl")] for name in ("one", "two"))
    assert two == pytest.approx(one, rel=2e-3)


def test_resumed_whole_and_divided_by_any_number(
    alone: Path, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun divided by two, gone on with by one, by three divided, and finished by two that hold all of it."""
    every = [*FORMS["eye"], "stages.align.checkpoint_every=1", "stages.instruct.checkpoint_every=1"]
    folder, real = tmp_path / "run", Trainer.save

    def until(stage: int, step: int) -> None:
        def stopping(self: Trainer, position: Any, *rest: Any, **more: Any) -> None:
            real(self, position, *rest, **more)
            if (position.stage, position.step) == (stage, step):
                raise KeyboardInterrupt

        monkeypatch.setattr(Trainer, "save", stopping)

    for world, shard, (stage, step) in ((2, "full", (0, 1)), (1, "full", (1, 1)), (3, "full", (1, 2))):
        until(stage, step)
        recipe = tiny(source, f"shard={shard}", *every)
        resume = folder.exists()
        for code, said in on_processes(world, lambda recipe=recipe, resume=resume: train(recipe, folder, resume), tmp_path / "said"):
            assert code == 1
            assert said.endswith("KeyboardInterrupt: ")
        written = [json.loads((x / "state.json").read_text()) for x in versions(folder / "checkpoint")]
        assert len(written) == (2 if resume else 1)
        assert len(written[0].get("cuts", [1])) == world
        assert (written[0]["stage"], written[0]["step"]) == (stage, step)
    monkeypatch.setattr(Trainer, "save", real)
    together(2, lambda: train(tiny(source, *every), folder, resume=True), tmp_path)
    same(alone / "eye", folder)


def test_an_error_within_a_pass_ends_all(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StageRun._passes

    def failing(self: StageRun, parts: Any) -> Any:
        if self.trainer.ranks.rank == 1 and self.index == 1:
            raise ValueError("a picture of no colour")
        return real(self, parts)

    monkeypatch.setattr(StageRun, "_passes", failing)
    ends = on_processes(2, lambda: train(tiny(source, "shard=full"), tmp_path / "run"), tmp_path / "said", END_S)
    assert [code for code, _ in ends] == [1, 1]
    assert "SensoriumError: another process of this run ended" in ends[0][1]
    assert ends[1][1].endswith("ValueError: a picture of no colour")
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == 2


def test_a_process_that_dies_within_its_share_ends_the_others(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last checkpoint, which the first process waits for with nothing else to do."""
    shares, real = list[Share](), Share.write

    def dying(self: Share) -> None:
        shares.append(self)
        if self.rank == 1 and len(shares) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self)

    monkeypatch.setattr(Share, "write", dying)
    monkeypatch.setattr("sensorium.training.shares.GRACE_S", 0.5)
    recipe = tiny(source, "shard=full", "stages.align.steps=1", "stages.instruct.steps=1")
    ends = on_processes(2, lambda: train(recipe, tmp_path / "run"), tmp_path / "said", END_S)
    assert [code for code, _ in ends] == [1, -signal.SIGKILL]
    assert "SensoriumError: another process of this run ended" in ends[0][1]
    found = load_checkpoint(tmp_path / "run" / "checkpoint")
    assert found is not None
    assert (found.stage, found.step) == (1, 0)


def test_an_error_of_data_is_told_to_all(source: str, tmp_path: Path) -> None:
    recipe = tiny(source, "shard=full", "stages.instruct.on_bad_row=stop")
    ends = on_processes(2, lambda: train(recipe, tmp_path / "run"), tmp_path / "said", END_S)
    assert [code for code, _ in ends] == [1, 1]
    assert all("gone.png" in said for _, said in ends)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model.backbone.quantise=nf4", "model.adapter={rank: 2}"], "a backbone in nf4"),
        (["stages.align.optimiser=adafactor"], "adafactor, which reads whole matrices"),
        (["stages.instruct.compile=true"], "compile, which has not been tried together"),
        (["model.fusion={kind: gated_cross_attention}"], "fusion 'gated_cross_attention'"),
        (["stages.instruct.learns=[{part: backbone, lr: 0.1, module: lm.model.embed_tokens, rows: [-1]}]"], "single rows"),
        ([EYE, "stages.instruct.cache_features=true"], "cache_features and an encoder that learns"),
    ],
)
def test_what_cannot_be_divided_is_refused_by_name(source: str, overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match="shard: full with") as error:
        check_sharding(tiny(source, *overrides))
    assert named in str(error.value)
