"""Several processes train what one would: the same losses, weights and order, and they end together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.nn.pretrained import read_file
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe
from sensorium.training.distributed.lockstep import Drawn
from sensorium.training.distributed.ranks import Ranks, joined
from sensorium.training.log import read_log
from sensorium.training.run import train_recipe
from sensorium.training.stage_run import StageRun
from sensorium.training.trainer import Trainer, TrainerOptions

CLOSE = 1e-5
END_S = 60
# Three rows of a batch for two processes: shares differ, and the last of four has none.
SHORT = ("stages.align.batch_size=3", "stages.instruct.batch_size=3", "stages.align.steps=3", "stages.instruct.steps=4",
         "stages.align.workers=0", "stages.instruct.workers=0")  # fmt: skip


def tiny(*overrides: str) -> Recipe:
    return RECIPES.find("tiny")().override([*SHORT, *overrides])


def train(recipe: Recipe, folder: Path, resume: bool = False) -> None:
    with joined() as ranks:
        train_on(ranks, recipe, folder, resume)


def train_on(ranks: Ranks, recipe: Recipe, folder: Path, resume: bool = False) -> None:
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume, ranks=ranks)
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)


def on_processes(world: int, work: Callable[[], None], folder: Path, limit_s: float = 120) -> list[tuple[int, str]]:
    """Run `work` in forked processes as `torchrun` would start them: of each its exit code and standard error."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder.mkdir(exist_ok=True, parents=True)
    children = [_child(rank, world, port, work, folder / f"{rank}.err") for rank in range(world)]
    codes: dict[int, int] = {}
    deadline = time.monotonic() + limit_s
    while len(codes) < world and time.monotonic() < deadline:
        for child in set(children) - set(codes):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    hung = set(children) - set(codes)
    for child in hung:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    said = [(folder / f"{rank}.err").read_text() for rank in range(world)]
    assert not hung, f"{len(hung)} of {world} processes hang: {said}"
    return [(codes[child], text) for child, text in zip(children, said, strict=True)]


def _child(rank: int, world: int, port: str, work: Callable[[], None], errors: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world),
                          MASTER_ADDR="127.0.0.1", MASTER_PORT=port)  # fmt: skip
        work()
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def together(world: int, recipe: Recipe, folder: Path, *, resume: bool = False) -> None:
    for code, said in on_processes(world, lambda: train(recipe, folder, resume), folder.parent / "said"):
        assert code == 0, said


def same(one: Path, two: Path) -> None:
    """Logs and weights of two runs, to rounding."""
    a, b = read_log(one / "log.jsonl"), read_log(two / "log.jsonl")
    exact = ("stage", "step", "samples", "truncated_samples", "truncated_tokens")
    assert [[line.get(k) for k in exact] for line in a] == [[line.get(k) for k in exact] for line in b]
    skipped = [[sorted(line.get("skipped_rows", ())) for line in lines] for lines in (a, b)]
    assert skipped[0] == skipped[1]
    for key in ("loss", "grad_norm", "next_token"):
        assert [line[key] for line in b] == pytest.approx([line[key] for line in a], rel=CLOSE), key
    x, y = read_file(one / "model" / "model.safetensors"), read_file(two / "model" / "model.safetensors")
    assert set(x) == set(y)
    for name in x:
        assert torch.allclose(x[name], y[name], atol=CLOSE, rtol=CLOSE), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(tiny(), folder)
    return folder


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_do_what_one_does(alone: Path, tmp_path: Path, world: int) -> None:
    together(world, tiny(), tmp_path / "run")
    same(alone, tmp_path / "run")


def test_accumulation_passes_and_losses_per_sample(tmp_path: Path) -> None:
    """Ranks that make other numbers of passes, and share losses per conversation, add up to one."""
    recipe = tiny("stages.instruct.accumulate=2", "stages.instruct.loss_per=sample", "stages.align.pack=true",
                  "stages.align.batch_size=2")  # fmt: skip
    train(recipe, tmp_path / "one")
    together(2, recipe, tmp_path / "two")
    same(tmp_path / "one", tmp_path / "two")


def test_text_rows_pictures_and_bad_rows_mixed(tmp_path: Path) -> None:
    """A rank whose share holds no picture, or no good row at all, teaches the projector nothing and holds nobody up."""
    Image.new("RGB", (40, 32), (90, 10, 10)).save(tmp_path / "red.png")

    def row(image: str | None, answer: str) -> str:
        content: list[dict[str, str]] = [{"type": "image", "image": image}] if image else []
        return json.dumps({"messages": [{"role": "user", "content": [*content, {"type": "text", "text": "What?"}]},
                                        {"role": "assistant", "content": answer}]})  # fmt: skip

    pictures = ["red.png", None, None, "gone.png", None, "red.png", None]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row(image, "a long answer " * (i + 1)) for i, image in enumerate(pictures)))
    source = f"[{{kind: file, path: {path}, format: samples}}]"
    recipe = tiny(f"stages.align.data={source}", f"stages.instruct.data={source}", "stages.align.batch_size=2",
                  "stages.align.on_bad_row=skip", "stages.instruct.on_bad_row=skip")  # fmt: skip
    train(recipe, tmp_path / "one")
    together(2, recipe, tmp_path / "two")
    same(tmp_path / "one", tmp_path / "two")
    assert any(line.get("skipped_rows") for line in read_log(tmp_path / "two" / "log.jsonl"))


def test_resumed_on_other_numbers_of_processes(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun by two, gone on with by one, finished by three: the order is the one of a run that nothing stopped."""
    recipe = tiny("stages.align.checkpoint_every=1", "stages.instruct.checkpoint_every=1")
    real = Trainer.save

    def stop_at(stage: int, step: int) -> None:
        def stopping(self: Trainer, position: Any, *rest: Any, **more: Any) -> None:
            real(self, position, *rest, **more)
            if (position.stage, position.step) == (stage, step):
                raise KeyboardInterrupt

        monkeypatch.setattr(Trainer, "save", stopping)

    folder = tmp_path / "run"
    stop_at(0, 2)
    for code, said in on_processes(2, lambda: train(recipe, folder), tmp_path / "said"):
        assert code == 1
        assert said.endswith("KeyboardInterrupt: ")
    stop_at(1, 2)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, resume=True)
    monkeypatch.setattr(Trainer, "save", real)
    together(3, recipe, folder, resume=True)
    same(alone, folder)


def test_an_error_on_one_ends_all_with_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StageRun._counted

    def failing(self: StageRun, drawn: Drawn, tally: Any) -> Any:
        if self.trainer.ranks.rank == 1 and self.index == 1:
            raise ValueError("a picture of no colour")
        return real(self, drawn, tally)

    monkeypatch.setattr(StageRun, "_counted", failing)
    ends = on_processes(2, lambda: train(tiny(), tmp_path / "run"), tmp_path / "said", END_S)
    assert [code for code, _ in ends] == [1, 1]
    assert "process 1 failed: ValueError: a picture of no colour" in ends[0][1]
    assert ends[1][1].endswith("ValueError: a picture of no colour")
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == 3


def test_a_signal_to_one_stops_and_saves_all(alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StageRun._counted

    def signalled(self: StageRun, drawn: Drawn, tally: Any) -> Any:
        if self.trainer.ranks.rank == 1 and self.watch._draw == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, drawn, tally)

    monkeypatch.setattr(StageRun, "_counted", signalled)
    for code, said in on_processes(2, lambda: train(tiny(), tmp_path / "run"), tmp_path / "said", END_S):
        assert code == 1
        assert "StoppedError: stage align, step 2 of 3: stopped by SIGTERM, and saved" in said
    monkeypatch.setattr(StageRun, "_counted", real)
    together(3, tiny(), tmp_path / "run", resume=True)
    same(alone, tmp_path / "run")


def test_all_go_back_over_a_spike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StageRun._counted

    def spiking(self: StageRun, drawn: Drawn, tally: Any) -> Any:
        state = real(self, drawn, tally)
        if self.index == 0 and self.watch._draw == 6:
            tally.total *= 10
        return state

    monkeypatch.setattr(StageRun, "_counted", spiking)
    recipe = tiny("stages.align.spikes={factor: 2.5, window: 3, rewind: true}", "stages.align.steps=8",
                  "stages.align.checkpoint_every=4", "stages.instruct.steps=1")  # fmt: skip
    train(recipe, tmp_path / "one")
    together(2, recipe, tmp_path / "two")
    same(tmp_path / "one", tmp_path / "two")
    for run in ("one", "two"):
        lines = read_log(tmp_path / run / "log.jsonl")
        assert [x["rewound"]["from_step"] for x in lines if "rewound" in x] == [6]
        assert sum(x.get("left_out_samples", 0) for x in lines) == 3


def test_all_go_back_over_a_damaged_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the one before it: one process puts the damaged one aside, under the eyes of the other."""
    real = StageRun._counted

    def spiking(self: StageRun, drawn: Drawn, tally: Any) -> Any:
        state = real(self, drawn, tally)
        if self.index == 0 and self.watch._draw == 4:
            tally.total *= 10
            if self.trainer.ranks.first:
                self.trainer.saver.wait()  # It would else be written whole behind this.
                (self.trainer.saver.folder / "rng.safetensors").write_bytes(b"nothing")
        return state

    monkeypatch.setattr(StageRun, "_counted", spiking)
    recipe = tiny("stages.align.spikes={factor: 2.5, window: 2, rewind: true}", "stages.align.steps=4",
                  "stages.align.checkpoint_every=2", "stages.instruct.steps=1")  # fmt: skip
    together(2, recipe, tmp_path / "run")
    lines = read_log(tmp_path / "run" / "log.jsonl")
    assert [x["step"] for x in lines] == [1, 2, 3, 4, 1]
    assert (tmp_path / "run" / "checkpoint.damaged").exists()


def test_a_failed_checkpoint_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("sensorium.training.saving.save_checkpoint", full)
    ends = on_processes(2, lambda: train(tiny(), tmp_path / "run"), tmp_path / "said", END_S)
    assert [code for code, _ in ends] == [1, 1]
    assert "process 0 failed: CheckpointError: " in ends[1][1]
    assert "no space left" in ends[1][1]


def test_other_weights_on_one_are_named(tmp_path: Path) -> None:
    recipe = tiny()

    def build() -> Any:
        model, tokenizer = build_pretrained(recipe.model)
        if os.environ["RANK"] == "1":
            with torch.no_grad():
                model.projectors["image"].get_parameter("layers.0.bias")[0] += 1e-7
        return model, tokenizer

    def work() -> None:
        with joined() as ranks:
            options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache", ranks=ranks)
            train_recipe(recipe, build, save_model, options)

    for code, said in on_processes(2, work, tmp_path / "said", END_S):
        assert code == 1
        assert "process 1 holds other weights than process 0 in projectors.image." in said


def test_what_compares_rows_is_refused(tmp_path: Path) -> None:
    recipe = RECIPES.find("tiny")()
    objective = {"kind": "contrastive"}
    changed = recipe.to_dict()
    changed["stages"][0]["objective"] = objective
    for code, said in on_processes(2, lambda: train(Recipe.from_dict(changed), tmp_path / "run"), tmp_path / "said", END_S):
        assert code == 1
        assert "objective 'contrastive' on 2 processes" in said


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: int) -> None:
    """With nobody who watches over them, and rank 0 being the one that the others met at: they notice at once."""
    real = StageRun._counted
    at = tmp_path / "at"

    def dying(self: StageRun, drawn: Drawn, tally: Any) -> Any:
        if self.trainer.ranks.rank == killed and self.index == 1:
            at.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, drawn, tally)

    monkeypatch.setattr(StageRun, "_counted", dying)
    ends = on_processes(3, lambda: train(tiny(), tmp_path / "run"), tmp_path / "said", END_S)
    assert time.time() - float(at.read_text()) < END_S / 6
    assert [code for code, _ in ends] == [-signal.SIGKILL if rank == killed else 1 for rank in range(3)]
    assert all("another process of this run ended" in said for rank, (_, said) in enumerate(ends) if rank != killed)


def test_launch_is_torchrun() -> None:
    """Two processes of the command line, which end at once; so does the job, with their exit code."""
    words = [sys.executable, "-m", "sensorium.cli.main", "launch", "--processes", "2", "--", "train"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=2 * END_S, check=False)
    assert done.returncode == 2, done.stderr
    assert 1 <= done.stderr.count("Missing argument 'recipe'") <= 2
    assert done.stderr.endswith(" failed with exit code 2\n")
    assert "Traceback" not in done.stderr
