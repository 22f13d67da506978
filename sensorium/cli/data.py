"""`data check`, `data build`, `data show`."""

from __future__ import annotations

import sys
from pathlib import Path

from sensorium.core.errors import ConfigError, DataError
from sensorium.core.naming import did_you_mean

DATA_SETS = ("picture-book", "drawing-book", "scenes")


def check_command(
    path: str, format: str, media_root: str | None, model: str, max_length: int, as_json: bool
) -> None:
    """Report everything; exit with 3 if there are problems."""
    from sensorium.api import find_model
    from sensorium.cli.main import print_json
    from sensorium.data.check import check_source
    from sensorium.data.formats import open_path
    from sensorium.interop.locate import locate
    from sensorium.interop.saved import read_model_config
    from sensorium.processing.processor import Processor
    from sensorium.text.tokenizer import Tokenizer

    source = open_path(Path(path), format, Path(media_root) if media_root else None)
    folder = find_model(model)
    config = read_model_config(folder)
    # Only the tokenizer is needed: no weights are loaded to check data.
    has_own = (folder / "tokenizer.json").exists()
    home = folder if has_own else locate(config.backbone.weights)
    if home is None:
        raise ConfigError(f"model {model!r} has no tokenizer")
    processor = Processor(config, Tokenizer.load(home))
    report = check_source(source, processor, max_length=max_length)
    values = report.to_json()
    if as_json:
        print_json({"path": path, **values})
    else:
        _print_report(values, max_length)
    if report.problems:
        sys.exit(DataError.exit_code)


def _print_report(values: dict[str, object], max_length: int) -> None:
    print(f"{values['good_rows']} of {values['rows']} rows are good; media: {values['media'] or 'none'}")
    notes = values["notes"]
    assert isinstance(notes, list)
    for note in notes:
        print(note)
    tokens = values["tokens"]
    print(f"tokens: {tokens}")
    bins = values["histogram"]
    assert isinstance(bins, list)
    widest = max((b["rows"] for b in bins), default=1)
    for b in bins:
        bar = "#" * max(1 if b["rows"] else 0, round(40 * b["rows"] / widest))
        print(f"  {b['from']:>6}-{b['to']:<6} {b['rows']:>8}  {bar}")
    if values["rows_without_answer"]:
        print(f"{values['rows_without_answer']} rows have no assistant turn: nothing to learn there")
    truncated, problems = values["truncated"], values["problems"]
    assert isinstance(truncated, list)
    assert isinstance(problems, list)
    print(f"{len(truncated)} rows are longer than {max_length} tokens and would be cut")
    for cut in truncated[:20]:
        print(f"  {cut['where']}: {cut['tokens_lost']} tokens too many")
    if len(truncated) > 20:
        print(f"  ... {len(truncated) - 20} more (--json lists all)")
    print(f"{len(problems)} problems")
    for problem in problems:
        print(f"  {problem}")


def build_command(
    name: str, out: str | None, packages: str | None, count: int, seed: int, as_json: bool
) -> None:
    """Build picture-book, drawing-book or scenes."""
    from sensorium.cli.main import print_json
    from sensorium.core.progress import progress
    from sensorium.data.picture_book.build import PictureBookConfig, build_picture_book
    from sensorium.data.picture_book.drawings import build_drawing_book
    from sensorium.data.picture_book.place import book_folder, data_folder
    from sensorium.data.scenes import build_scenes

    if name not in DATA_SETS:
        raise ConfigError(f"unknown data set {name!r}", fix=did_you_mean(name, DATA_SETS))
    target = Path(out) if out else data_folder() / name
    if name == "scenes":
        build_scenes(target, seed=seed, count=count)
        counts = {"scenes": count}
    else:
        store = Path(packages) if packages else data_folder() / "packages"
        config = PictureBookConfig()
        with progress(name, 1) as meter:

            def report(stage: str, done: int, total: int) -> None:
                meter.update(done, f"{stage} {done}/{total}", total=total)

            if name == "picture-book":
                counts = build_picture_book(config, target, store, report)
            else:
                counts = build_drawing_book(config, target, store, book_folder("full"), report)
    if as_json:
        print_json({"folder": str(target), "counts": counts})
    else:
        print(f"{target}: {counts}")


def show_command(path: str, format: str, row: int, rows: int, as_json: bool) -> None:
    """Print rows as conversations."""
    from sensorium.cli.main import print_json
    from sensorium.data.formats import open_path

    source = open_path(Path(path), format)
    if not 1 <= row <= len(source):
        raise DataError(f"row {row}", expected=f"1 to {len(source)}", where=path)
    chosen = [source[i] for i in range(row - 1, min(row - 1 + rows, len(source)))]
    if as_json:
        print_json([_printable(sample.to_json()) for sample in chosen])
        return
    for number, sample in enumerate(chosen, start=row):
        print(f"--- row {number} {sample.id}")
        for message in sample.messages:
            parts = [p.value if p.type == "text" else f"[{p.type}: {_short(p.value)}]"
                     for p in message.content]  # fmt: skip
            print(f"{message.role:>10}: {' '.join(parts)}")


def _short(value: object) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def _printable(value: object) -> object:
    if isinstance(value, bytes):
        return _short(value)
    if isinstance(value, dict):
        return {k: _printable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(v) for v in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
