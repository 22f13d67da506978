"""Rows with videos and sound, as others hand them out and as the command line makes them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from test_clips_seen import row, tiny, write_media
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import DataError
from sensorium.core.sample import parse_sample
from sensorium.data.config import FileSource
from sensorium.data.formats.rows import column_row, turn_row
from sensorium.data.formats.table import open_table
from sensorium.data.formats.webdataset import open_webdataset
from sensorium.interop.saved import save_model


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_media(tmp_path)


@pytest.mark.parametrize(("kind", "name"), [("audio", "a.wav"), ("video", "a.mp4")])
def test_the_command_line_asks_about_them(kind: str, name: str, files: Path, tmp_path: Path) -> None:
    """By the names of files; what was asked is a row of data afterwards, and no picture."""
    model = tiny()
    save_model(model.network, model.tokenizer, tmp_path / "saved", learnt=set())
    (files / "a.mp4").write_bytes((files / "a.webp").read_bytes())
    command = ["ask", str(files / name), "What is it?", "--model", str(tmp_path / "saved"), "--max-tokens", "3", "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    messages = parse_sample(row({"type": kind, kind: str(files / name)})).messages[:1]
    assert (said["answer"], said["pictures"]) == (model.respond(messages, max_tokens=3).strip(), [])
    done = CliRunner().invoke(app, [*command, "--save", str(tmp_path / "out")])
    assert done.exit_code in (0, 9), done.output
    kept = json.loads((tmp_path / "out" / "sample.json").read_text(encoding="utf-8"))["messages"][0]["content"][0]
    assert kept == {"type": kind, kind: f"asked{Path(name).suffix}"}
    assert (tmp_path / "out" / kept[kind]).read_bytes() == (files / name).read_bytes()
    talk = CliRunner().invoke(app, ["chat", "--model", str(tmp_path / "saved"), "--max-tokens", "3"],
                              input=f"/file {files / 'gone.wav'}\n/file {files / name}\nWhat is it?\n/quit\n")  # fmt: skip
    assert f"added {files / name} ({kind})" in talk.stdout
    assert "no such file" in talk.stderr
    assert talk.stderr.count("error:") == 1


def test_sound_beside_a_picture_or_a_film_is_left_out_of_tables() -> None:
    """Most models have no ear, and read such tables before there was one."""
    for kind, name in (("image", "a.png"), ("video", "a.mp4")):
        row = column_row({kind: name, "audio": "a.wav", "caption": "a dog"}, "")
        assert row["messages"][0]["content"] == [{"type": kind, kind: name}]


def test_tables_and_shards_hold_sound_with_captions(files: Path) -> None:
    """As AudioCaps is handed out."""
    (files / "rows.csv").write_text("audio,caption\na.wav,a low tone\n", encoding="utf-8")
    with tarfile.open(files / "0000.tar", "w") as shard:
        for name, content in (("a.wav", (files / "a.wav").read_bytes()), ("a.txt", b"a low tone")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    model = tiny()
    found = [model.processor.encode(source[0]) for source in (open_table(files / "rows.csv"), open_webdataset(files / "0000.tar"))]
    assert found[0].input_ids == found[1].input_ids
    assert torch.equal(*(one.media["audio"].pixels_NCHW for one in found))


def test_rows_as_next_gpt_hands_them_out(files: Path) -> None:
    """webvid_comprehension.json, audiocap_generation.json, and a conversation with media of both sides, each taken by its own."""
    said = lambda *turns: [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]  # noqa: E731
    rows = [
        {"input_video": "a.webp", "conversations": said("<video>\nTell me about the video.", "A red square.")},
        {"output_audio": "b.wav", "audio_captions": "a tone", "audio_caption_embeddings": "b.npy", "conversations": said("Make a sound of a tone", "Ok. <audio>")},
        {"input_image": ["a.png", "b.png"], "output_image": "c.png", "input_audio": ["a.wav"],
         "conversations": said("<image>\nWhat?", "Like this <image>", "<audio> and <image>?", "No.")},
    ]  # fmt: skip
    (files / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    source = FileSource(path=str(files / "rows.json")).open()
    found = [[[(part.type, part.value) for part in message.content if part.type != "text"] for message in source[i].messages] for i in range(3)]
    assert found[0] == [[("video", "a.webp")], []]
    assert found[1] == [[], [("audio", "b.wav")]]
    assert [part.prompt for part in source[1].media()] == ["a tone"]
    assert found[2] == [[("image", "a.png")], [("image", "c.png")], [("audio", "a.wav"), ("image", "b.png")], []]
    model = tiny("next-gpt-1.5")
    assert [sorted(model.processor.encode(source[i]).media) for i in range(3)] == [["video"], [], ["audio", "image"]]
    assert [one.caption for i in (1, 2) for one in model.processor.encode(source[i]).wanted] == ["a tone", "Like this"]
    (files / "rows.json").write_text(json.dumps([rows[1] | {"conversations": said("Make a sound", "Ok.")}]), encoding="utf-8")
    with pytest.raises(DataError, match="output_audio without a place in an answer"):
        FileSource(path=str(files / "rows.json")).open()[0]


def test_media_of_answers_stand_in_parts_and_keep_their_captions() -> None:
    """A part without a value takes the next medium of its side, as a placeholder does."""
    asked = {"role": "user", "content": "Make a sound"}
    row = {"messages": [asked, {"role": "assistant", "content": [{"type": "audio"}]}], "output_audio": ["a.wav"], "audio_captions": ["a tone"]}
    assert turn_row(row, "")["messages"][1]["content"] == [{"type": "audio", "audio": "a.wav", "prompt": "a tone"}]
    with pytest.raises(DataError, match="1 of output_audio and 2 of audio_captions"):
        turn_row(row | {"audio_captions": ["a tone", "another"]}, "")
    # What lies in a column is a value, whatever it looks like.
    shown = {"messages": [{"role": "user", "content": "<image>"}], "image": {"type": "file", "path": "a.png"}, "image_captions": ["of no answer"]}
    assert turn_row(shown, "")["messages"][0]["content"] == [{"type": "image", "image": {"type": "file", "path": "a.png"}}]
