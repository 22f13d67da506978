"""The packages that the picture sets are made of: fetched, checked, read as archives.

Debian packages come through apt-get, icon sets through npm; nothing of them is executed.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sensorium.core.atomic import atomic_path
from sensorium.core.config import Config
from sensorium.core.errors import DataError
from sensorium.core.hashing import sha256_file


class Package(Config):
    """A pinned package, from Debian unless `npm` is set."""

    name: str
    version: str
    sha256: str
    npm: bool = False

    @property
    def file(self) -> str:
        if self.npm:
            return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"

    @property
    def command(self) -> list[str]:
        """What downloads it into the working directory."""
        if self.npm:
            return ["npm", "pack", "--silent", "--ignore-scripts", f"{self.name}@{self.version}"]
        # Unsandboxed download: the scratch folder is not readable for apt's own user.
        return ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root",
                f"{self.name}={self.version}"]  # fmt: skip


STAMPS = Package(
    name="tuxpaint-stamps-default",
    version="2022.06.04-1",
    sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
CLIPART = Package(
    name="openclipart-png",
    version="1:0.18+dfsg-19",
    sha256="f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
)
WORDS = Package(
    name="wamerican",
    version="2020.12.07-2",
    sha256="c8f8e2b2ad0d37bfdd41f0e40f1e4c8e5f907467d768a1d3698b164e9617f0b4",
)


def fetch_package(package: Package, folder: Path) -> Path:
    """The package's file, from `folder` or through apt-get or npm.

    Raises:
        DataError: it cannot be had, or is not the pinned file.
    """
    target = folder / package.file
    if not target.exists():
        _download(package, target)
    digest = sha256_file(target)
    if digest != package.sha256:
        raise DataError(
            f"sha256 is {digest}", expected=package.sha256, where=str(target), fix="delete the file"
        )
    return target


def _download(package: Package, target: Path) -> None:
    tool = package.command[0]
    if shutil.which(tool) is None:
        raise DataError(
            f"{package.file} is not in {target.parent} and there is no {tool} here",
            fix=f"download the package {package.name} {package.version} and put it there",
        )
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            package.command, cwd=scratch, capture_output=True, text=True, check=False
        )
        found = [*Path(scratch).glob("*.deb"), *Path(scratch).glob("*.tgz")]
        if done.returncode or not found:
            reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
            update = "" if package.npm else "run `apt-get update` first, or "
            raise DataError(
                f"{tool} could not download {package.name} {package.version}: {reason}",
                fix=f"{update}put {package.file} into {target.parent}",
            )
        with atomic_path(target) as temporary:
            shutil.copyfile(found[0], temporary)


def read_tgz(file: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """The named files of an npm package, by their path inside it.

    Raises:
        DataError: one is missing.
    """
    found: dict[str, bytes] = {}
    with tarfile.open(file, "r:gz") as archive:
        for member in archive:
            inside = member.name.partition("/")[2]
            stream = archive.extractfile(member) if inside in names else None
            if stream is not None:
                found[inside] = stream.read()
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"no {', '.join(missing)} in the package", where=str(file))
    return found


def read_tgz_members(file: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """(path inside, content) of an npm package's files whose names end with `suffix`."""
    with tarfile.open(file, "r:gz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.endswith(suffix) else None
            if stream is not None:
                yield member.name.partition("/")[2], stream.read()


def read_members(deb: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the files in a .deb whose names end with one of `suffixes`.

    Raises:
        DataError: the file is not a Debian package with a tar archive inside.
    """
    with tarfile.open(fileobj=io.BytesIO(_data_archive(deb))) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(suffixes):
                stream = archive.extractfile(member)
                if stream is not None:
                    yield member.name.removeprefix("./"), stream.read()


def _data_archive(deb: Path) -> bytes:
    """The `data.tar.*` member; a .deb is an `ar` archive of three members."""
    content = deb.read_bytes()
    if not content.startswith(b"!<arch>\n"):
        raise DataError("not a Debian package", where=str(deb))
    position = 8
    while position + 60 <= len(content):
        header = content[position : position + 60]
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        position += 60
        if name.startswith("data.tar"):
            return content[position : position + size]
        position += size + size % 2
    raise DataError("no data archive in the package", where=str(deb))
