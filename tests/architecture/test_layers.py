"""Do imports point down, and does the command line start at once?"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sensorium

ROOT = Path(sensorium.__file__).parent
PARTS = {"encoders", "input_projectors", "backbones", "fusion", "output_projectors", "generators"}
BASE = {"core"}
ALLOWED: dict[str, set[str]] = {
    "core": set(),
    "media": BASE,
    "text": BASE,
    "nn": BASE,
    **{part: {"core", "nn"} for part in PARTS},
    # Pictures that are found lie in files.
    "generators": {"core", "nn", "media"},
    # The config of a model names its resolution strategy and chat template.
    "model": {"core", "nn", "media", "text", *PARTS},
    "processing": {"core", "media", "text"},
    "data": {"core", "media", "text", "processing", "experts"},
    "features": {"core", "model", "processing"},
    "training": {"core", "features", "nn", "text", "processing", "model", "data", "input_projectors", "generators"},
    "inference": {"core", "nn", "media", "text", "processing", "model", "backbones"},
    "evaluation": {"core", "nn", "media", "data", "text"},
    "interop": {"core", "nn", "media", "text", "model", *PARTS},
    # Models that are asked about pictures; they know nothing of data.
    "experts": {"core", "media", "api"},
    # A recipe names its resolution strategy as a model's config does.
    "recipes": {"core", "media", "model", "data", "training", "experts", *PARTS},
    "cli": {"*"},
    "api": {"core", "features", "inference", "interop", "model", "processing", "text"},
}


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


# What `sensorium` itself hands out comes from here (`__getattr__` in its __init__.py).
HANDED_OUT = {"load": "api", "Model": "api", "api": "api"}


def imported(text: str, package: tuple[str, ...]) -> set[str]:
    """First-level packages of ours that a file imports, inside functions too.

    Args:
        text: what the file holds.
        package: the package it lies in, for relative imports.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            # `from sensorium import data` names a package too, `import load` a function.
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "sensorium" else [module]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
            # Lazy targets of name tables count as imports too.
            names = [node.value.partition(":")[0]]
        parts = [name.split(".")[1] for name in names if name.startswith("sensorium.")]
        found |= {HANDED_OUT.get(p, p) for p in parts if not p.startswith("__")}
    return found


FILES = sorted(p for p in ROOT.rglob("*.py") if package_of(p) != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    mine = package_of(path)
    allowed = ALLOWED[mine] | {mine}
    package = path.relative_to(ROOT.parent).parent.parts
    wrong = set() if "*" in allowed else imported(path.read_text(encoding="utf-8"), package) - allowed
    assert not wrong, f"{path.relative_to(ROOT)} in layer {mine} imports {sorted(wrong)}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import sensorium.data.config", {"data"}),
        ("from sensorium.data.config import X", {"data"}),
        ("from sensorium import data, training", {"data", "training"}),
        ("from sensorium import load", {"api"}),
        ("from sensorium import __version__", set()),
        ("import sensorium\nsensorium.load('x'), sensorium.__version__", {"api"}),
        ("from . import base", {"evaluation"}),
        ("from .base import X", {"evaluation"}),
        ("from ..runner import X", {"evaluation"}),
        ("from ...model.config import X", {"model"}),
        ("from ... import model", {"model"}),
        ("def f():\n    from ...api import load", {"api"}),
        ("T = {'a': 'sensorium.nn.norms:Norm'}", {"nn"}),
        ("import numpy\nfrom torch import nn", set()),
    ],
)
def test_no_way_of_importing_is_overlooked(line: str, expected: set[str]) -> None:
    assert imported(line, ("sensorium", "evaluation", "benchmarks")) == expected


def test_every_folder_has_a_layer() -> None:
    folders = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()}
    assert folders <= set(ALLOWED)


def test_files_and_functions_stay_short() -> None:
    long: list[str] = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 320:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > 62:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert not long, "\n".join(long)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_sensorium_is_light() -> None:
    heavy = "('torch', 'transformers', 'diffusers', 'fastapi', 'numpy')"
    loaded = run_python(f"import sys, sensorium; print([m for m in {heavy} if m in sys.modules])")
    assert loaded == "[]"


def test_help_loads_no_heavy_module() -> None:
    code = (
        "import sys\nimport sensorium.cli.main\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'pydantic') if m in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_help_answers_at_once() -> None:
    """Under 0.3 s of processor time beyond what starting Python itself costs; best of five.
    Not time on the clock, which measures what else the machine does."""

    def best(command: list[str]) -> float:
        seconds: list[float] = []
        for _ in range(5):
            before = os.times()
            subprocess.run(command, capture_output=True, check=True)
            after = os.times()
            seconds.append(after.children_user + after.children_system
                           - before.children_user - before.children_system)  # fmt: skip
        return min(seconds)

    bare = best([sys.executable, "-c", "pass"])
    full = best([sys.executable, "-m", "sensorium.cli.main", "--help"])
    assert full - bare < 0.3, f"--help took {full:.3f} s, bare Python {bare:.3f} s"
