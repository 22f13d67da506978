"""The real commands, as a person types them, on tiny models."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sensorium import __version__
from sensorium.cli.main import main

RUN = [sys.executable, "-m", "sensorium.cli.main"]


def process(*words: str, stdin: str = "") -> str:
    """A command in a process of its own."""
    done = subprocess.run([*RUN, *words], capture_output=True, text=True, input=stdin, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def sensorium(*words: str, code: int = 0, stdin: str = "", cwd: Path | None = None) -> str:
    """A command in this process, from its words to its exit code: torch is not imported anew each time."""
    out, error, found = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
        patch.setattr(sys, "argv", ["sensorium", *words])
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        if cwd is not None:
            patch.chdir(cwd)
        try:
            main()
        except SystemExit as end:
            found = end.code if isinstance(end.code, int) else int(bool(end.code))
    assert found == code, f"exit {found}\n{out.getvalue()}\n{error.getvalue()}"
    return out.getvalue() if code == 0 else out.getvalue() + error.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    out = process("train", "tiny", "stages.align.steps=2", "stages.instruct.steps=2",
                    "--out", str(folder))  # fmt: skip
    assert "Model:" in out
    return folder


def test_the_version_is_said() -> None:
    assert sensorium("--version") == f"sensorium {__version__}\n"


def test_train_writes_everything(trained: Path) -> None:
    names = {p.name for p in trained.iterdir()}
    assert {"model", "checkpoint", "log.jsonl", "loss.png", "recipe.yaml"} <= names


def test_train_again_is_refused_and_resume_is_not(trained: Path) -> None:
    again = ("train", "tiny", "stages.align.steps=2", "stages.instruct.steps=2", "--out", str(trained))
    assert "--resume" in sensorium(*again, code=6)
    plan = json.loads(sensorium(*again, "--resume", "--json"))
    assert [s["stage"] for s in plan["stages"]] == ["align", "instruct"]


def test_plan_only_trains_nothing(tmp_path: Path) -> None:
    plan = json.loads(sensorium("train", "tiny", "--plan-only", "--json", "--out", str(tmp_path / "r")))
    assert plan["trained"] is False
    learning = {p["part"]: p["learning"] for p in plan["stages"][0]["parts"]}
    assert learning["projectors.image"] > 0
    assert learning["backbone"] == 0
    assert not (tmp_path / "r" / "model").exists()


def test_ask_answers_and_times(trained: Path, picture: Path) -> None:
    answer = json.loads(sensorium("ask", str(picture), "What?", "--model", str(trained),
                                  "--max-tokens", "4", "--json"))  # fmt: skip
    assert {"answer", "load_s", "first_token_s", "tokens_per_s"} <= set(answer)
    (part,) = answer["content"]
    assert part["text"] == answer["answer"]
    searched = json.loads(sensorium("ask", str(picture), "What?", "--model", str(trained), "--max-tokens", "4", "--beams", "2", "--json"))
    assert [part["text"] for part in searched["content"]] == [searched["answer"]]


def test_the_device_can_be_named(trained: Path, picture: Path) -> None:
    ask = ("ask", str(picture), "What?", "--model", str(trained), "--max-tokens", "2", "--json")
    assert json.loads(sensorium(*ask, "--device", "cpu"))["device"] == "cpu"
    for command in (ask, ("chat", "--model", str(trained)), ("eval", "--model", str(trained))):
        assert "unknown device 'cpuu'" in sensorium(*command, "--device", "cpuu", code=2)


def test_ask_names_a_bad_picture(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    assert "0 bytes" in sensorium("ask", str(tmp_path / "x.png"), "?", "--model", str(trained), code=3)
    assert "no such file" in sensorium("ask", "gone.png", "?", "--model", str(trained), code=3)
    assert "did you mean 'nano'" in sensorium("ask", "gone.png", "?", "--model", "nanno", code=5)


def test_chat_keeps_going_after_errors(trained: Path, picture: Path) -> None:
    lines = "/image gone.png\n/image " + str(picture) + "\nWhat?\n/what\n/new\nhello\n/quit\n"
    out = process("chat", "--model", str(trained), "--max-tokens", "3", stdin=lines)
    assert "added" in out
    assert "unknown command /what" in out


def test_eval_writes_a_report(trained: Path, tmp_path: Path) -> None:
    scores = json.loads(sensorium(
        "eval", "--model", str(trained), "attribute:count=6", "naming:part=shipped", "existence:part=shipped",
        "--limit", "4", "--out", str(tmp_path / "e"), "--json"))  # fmt: skip
    assert set(scores["benchmarks"]) == {"attribute", "naming", "existence"}
    assert scores["benchmarks"]["existence"]["items"] == 8
    for value in scores["benchmarks"].values():
        assert set(value["scores"]) == {"model", "blind", "constant"}
    html = (tmp_path / "e" / "report.html").read_text()
    assert html.count("<div class='card") == 4 + 4 + 8
    assert "data:image/webp;base64" in html
    rows = json.loads((tmp_path / "e" / "results.json").read_text())
    assert len(rows["benchmarks"]["naming"]["rows"]) == 4


def test_eval_names_unknown_benchmarks(trained: Path) -> None:
    assert "did you mean 'naming'" in sensorium("eval", "naming2", "--model", str(trained), code=2)
    assert "limitt" in sensorium("eval", "naming:limitt=3", "--model", str(trained), code=2)


def rows(tmp_path: Path) -> Path:
    Image.new("RGB", (9, 9)).save(tmp_path / "ok.png")
    (tmp_path / "empty.jpg").write_bytes(b"")

    def row(image: str, answer: str = "yes") -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": [{"type": "image", "image": image}]},
                             {"role": "assistant", "content": answer}]}  # fmt: skip

    lines = [row("ok.png"), row("empty.jpg"), row("gone.png"), row("ok.png", "long " * 200),
             {"messages": []}, {"messages": [{"role": "bard", "content": "x"}]}]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n{broken\n")
    return path


def test_data_check_reports_every_problem(trained: Path, tmp_path: Path) -> None:
    path = rows(tmp_path)
    command = ("data", "check", str(path), "--model", str(trained), "--max-length", "128")
    text = sensorium(*command, code=3)
    for place in (":2", ":3", ":5", ":6", ":7"):
        assert f"rows.jsonl{place}" in text
    report = json.loads(sensorium(*command, "--json", code=3).split("checking")[0])
    assert report["rows"] == 7
    assert report["good_rows"] == 2
    assert len(report["problems"]) == 5
    assert len(report["truncated"]) == 1
    assert sum(b["rows"] for b in report["histogram"]) == 2


def test_data_show_and_build(tmp_path: Path) -> None:
    sensorium("data", "build", "scenes", "--out", str(tmp_path / "s"), "--count", "3")
    shown = sensorium("data", "show", str(tmp_path / "s" / "instruct.train.jsonl"), "--rows", "1")
    assert "[image: images/000000.webp]" in shown
    assert "row 9" in sensorium("data", "show", str(tmp_path / "s" / "instruct.train.jsonl"),
                                "--row", "9", code=3)  # fmt: skip
    assert "did you mean 'scenes'" in sensorium("data", "build", "scene", code=2)


def test_recipes_list_show_and_typos() -> None:
    assert {r["name"] for r in json.loads(sensorium("recipe", "list", "--json"))} >= {"nano", "demo"}
    assert "kind: efficientnet_lite" in sensorium("recipe", "show", "nano")
    assert "did you mean 'nano'" in sensorium("recipe", "show", "nana", code=2)
    assert "did you mean 'steps'" in sensorium("recipe", "show", "tiny", "stages.align.step=1", code=2)


def test_a_printed_recipe_trains(tmp_path: Path) -> None:
    text = sensorium("recipe", "show", "tiny", "stages.align.steps=1", "stages.instruct.steps=1")
    (tmp_path / "mine.yaml").write_text(text)
    sensorium("train", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "run"), "--json")
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_import_and_export_return_the_same_files(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
    from hf_models import llava

    from sensorium.interop.hf import same_tensors
    from sensorium.text.byte_tokenizer import byte_tokenizer

    llava(tmp_path / "hf")
    byte_tokenizer().save(tmp_path / "hf")
    sensorium("import", str(tmp_path / "hf"), str(tmp_path / "ours"))
    sensorium("export", str(tmp_path / "ours"), str(tmp_path / "back"))
    assert same_tensors(tmp_path / "hf", tmp_path / "back")
    for name in ("config.json", "tokenizer.json"):
        one, two = (json.loads((tmp_path / f / name).read_text()) for f in ("hf", "back"))
        assert one == two


def test_half_precision_export_answers(trained: Path, tmp_path: Path, picture: Path) -> None:
    sensorium("export", str(trained), str(tmp_path / "half"), "--to", "sensorium", "--half")
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert size < 0.6 * (trained / "model" / "model.safetensors").stat().st_size
    sensorium("ask", str(picture), "?", "--model", str(tmp_path / "half"), "--max-tokens", "2")


def test_doctor_speaks_json() -> None:
    done = subprocess.run([*RUN, "doctor", "--json"], capture_output=True, text=True, check=False)
    findings = json.loads(done.stdout)
    assert done.returncode == int(any(f["state"] == "missing" for f in findings))
    assert all(f["remedy"] for f in findings if f["state"] in ("missing", "option"))


def test_no_traceback_for_user_errors(tmp_path: Path) -> None:
    out = sensorium("train", str(tmp_path / "gone.yaml"), code=2)
    assert "Traceback" not in out
    assert out.startswith("error: ")
