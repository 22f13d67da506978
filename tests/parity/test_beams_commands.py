"""`ask --beams` and `eval --beams` find what transformers' `generate` finds; elsewhere beams are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hf_models
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sensorium.api import load
from sensorium.cli.answering import AnswerOptions
from sensorium.cli.chatting import chat_command
from sensorium.cli.exchange import ImportOptions, import_command
from sensorium.cli.main import app
from sensorium.core.errors import ConfigError
from sensorium.core.responder import Request
from sensorium.core.sample import parse_messages
from sensorium.inference.sampling import Sampling
from sensorium.text.byte_tokenizer import byte_tokenizer

BEAMS, LENGTH = 4, 12
QUESTIONS = ("What is this?", "A cat?", "How many are there of them?")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    """Theirs, ours as the command imports it, and a picture."""
    folder = tmp_path_factory.mktemp("beams")
    torch.manual_seed(3)
    theirs = hf_models.llava(folder / "hf", vocab=300)
    with torch.no_grad():
        # Letters and ends are what it says: other bytes are no text by themselves.
        said = torch.zeros(300, 1)
        letters = byte_tokenizer().encode("abcdefghijklmnopqrstuvwxyz")
        said[[*letters, byte_tokenizer().eos_id]] = 1.5
        theirs.lm_head.weight *= said
    theirs.save_pretrained(folder / "hf")
    byte_tokenizer().save(folder / "hf")
    import_command(str(folder / "hf"), str(folder / "ours"), ImportOptions(), as_json=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    return theirs, folder / "ours", folder / "picture.png"


def command(*words: str) -> Any:
    done = CliRunner().invoke(app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def asked(picture: Path, question: str) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": str(picture)}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def expected(theirs: Any, ours: Path, picture: Path, question: str, beams: int, length: int = LENGTH) -> str:
    """What transformers' own search finds behind the same tokens and pixels."""
    model = load(ours, "cpu")
    prompt = model.processor.prompt(parse_messages(asked(picture, question)))
    seen = model.network.config.lane("image").encoder.preprocess()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (seen.mean, seen.std))
    ids = torch.tensor([prompt.input_ids])
    for slot in prompt.slots["image"]:
        ids[0, slot] = theirs.config.image_token_id
    out = theirs.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=beams, do_sample=False, max_new_tokens=length,
        pixel_values=(prompt.media["image"].pixels_NCHW / 255 - mean) / std, pad_token_id=model.tokenizer.pad_id,
        eos_token_id=sorted(model.processor.stop_ids),
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    stops = [i for i, token in enumerate(out) if token in model.processor.stop_ids]
    return model.engine.text(out[: stops[0]] if stops else out)


def test_ask_finds_what_transformers_finds(made: tuple[Any, Path, Path]) -> None:
    theirs, ours, picture = made
    others = 0
    for question in QUESTIONS:
        words = ("ask", str(picture), question, "--model", str(ours), "--device", "cpu", "--max-tokens", str(LENGTH))
        found = json.loads(command(*words, "--beams", str(BEAMS), "--json"))["answer"]
        assert found == expected(theirs, ours, picture, question, BEAMS)
        assert command(*words, "--beams", str(BEAMS)).strip() == found
        greedy = json.loads(command(*words, "--json"))["answer"]
        assert greedy == expected(theirs, ours, picture, question, 1)
        others += greedy != found
    assert others, "a search that finds what needs none"


def test_eval_finds_what_transformers_finds(made: tuple[Any, Path, Path], tmp_path: Path) -> None:
    theirs, ours, picture = made
    rows = [{"messages": [*asked(picture, q), {"role": "assistant", "content": "x"}]} for q in QUESTIONS]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    command("eval", f"vqa_file:path={tmp_path / 'q.jsonl'},max_tokens={LENGTH}", "--model", str(ours), "--device",
            "cpu", "--beams", str(BEAMS), "--out", str(tmp_path / "out"))  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    answers = [row["model"] for row in results["benchmarks"]["vqa_file"]["rows"]]
    assert answers == [expected(theirs, ours, picture, q, BEAMS) for q in QUESTIONS]


def test_each_request_is_searched_with_its_own_room(made: tuple[Any, Path, Path]) -> None:
    """A search with more room ends elsewhere, so that its front is not what one with less room finds."""
    theirs, ours, picture = made
    lengths = (3, 9, 3)
    requests = [Request(q, parse_messages(asked(picture, q)), length)
                for q, length in zip(QUESTIONS, lengths, strict=True)]  # fmt: skip
    answers = [a.text for a in load(ours, "cpu").answering(Sampling(beams=BEAMS)).respond(requests)]
    assert answers == [expected(theirs, ours, picture, q, BEAMS, length)
                       for q, length in zip(QUESTIONS, lengths, strict=True)]  # fmt: skip


def test_beams_are_refused_by_name(made: tuple[Any, Path, Path], tmp_path: Path) -> None:
    _, ours, picture = made
    with pytest.raises(ConfigError, match=r"a conversation with 3 beams, whose answers come piece by piece.*ask --beams"):
        chat_command(None, AnswerOptions(str(ours), "cpu", 8, 0.0, beams=3))
    assert "No such option: --beams" in CliRunner().invoke(app, ["chat", "--beams", "3"]).output
    with pytest.raises(ConfigError, match="with beams, and chance"):
        command("ask", str(picture), "?", "--model", "no such", "--beams", "2", "--temperature", "0.5")
    for words in (("ask", str(picture), "?"), ("eval", "--out", str(tmp_path))):
        with pytest.raises(ConfigError, match="beams 0"):
            command(*words, "--model", "no such", "--beams", "0")
        assert "--beams" in command(words[0], "--help")


def test_a_model_that_compares_has_no_beams(tmp_path: Path) -> None:
    hf_models.clip(tmp_path / "hf")
    byte_tokenizer().save(tmp_path / "hf")
    import_command(str(tmp_path / "hf"), str(tmp_path / "clip"), ImportOptions(), as_json=True)
    with pytest.raises(ConfigError, match="writes nothing"):
        command("eval", "naming", "--model", str(tmp_path / "clip"), "--beams", "3", "--out", str(tmp_path / "out"))
