"""A file of video or sound, opened by PyAV (extra `video`): of formats in `FILES` alone, for some others (playlists) name further files or addresses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

from sensorium.core.errors import MediaError, SensoriumError
from sensorium.media.image import resolve_path

StreamKind = Literal["video", "audio"]
VIDEOS = ("mov", "matroska", "avi", "mpegts", "mpeg", "ogg", "flv")
"""By the names of FFmpeg's readers: MP4, WebM and the like among them."""
FILES: dict[StreamKind, tuple[str, ...]] = {"video": VIDEOS, "audio": ("wav", "w64", "aiff", "mp3", "flac", "aac", *VIDEOS)}
INSTEAD: dict[StreamKind, str] = {"video": "give the video as a list of pictures", "audio": "give the sound as a WAV file of whole numbers (PCM)"}


class Stored:
    """A file, by its path or as its bytes; `where` names it in errors."""

    def __init__(self, source: Any, root: Path | None, kind: StreamKind, others: str) -> None:
        """Look whether it is there.

        Args:
            root: folder that a relative path starts from.
            others: what else such a medium may be.

        Raises:
            MediaError: it is neither path nor bytes, or there is no such file.
        """
        if not isinstance(source, str | Path | bytes | bytearray | memoryview):
            raise MediaError(f"{kind} is a {type(source).__name__}", expected=f"a path, bytes, {others}")
        self.where = f"{kind} bytes"
        self.source: Any = source
        if isinstance(source, str | Path):
            self.source = resolve_path(Path(source), root)
            self.where = repr(str(self.source))[1:-1]
            if not self.source.is_file():
                raise MediaError("no such file", where=self.where)

    def stream(self) -> io.BufferedReader | io.BytesIO:
        return self.source.open("rb") if isinstance(self.source, Path) else io.BytesIO(self.source)


class Opened:
    """A file's container and its first stream of a kind, in which whatever FFmpeg finds wrong becomes a MediaError."""

    def __init__(self, stored: Stored, kind: StreamKind) -> None:
        self.where = stored.where
        self.kind: StreamKind = kind
        self.stream = stored.stream()
        self.container: Any = None

    def __enter__(self) -> tuple[Any, Any]:
        try:
            import av
        except ImportError:
            self.stream.close()
            raise MediaError(f"reading a file of {self.kind} needs PyAV", where=self.where,
                             fix=f"pip install -e '.[video]' in the clone, or {INSTEAD[self.kind]}") from None  # fmt: skip
        try:
            # Opened here and not by name, which FFmpeg might take for an address.
            self.container = av.open(self.stream, options={"format_whitelist": ",".join(FILES[self.kind])}, metadata_errors="ignore")
            streams = getattr(self.container.streams, self.kind)
            if not streams:
                raise MediaError(f"a file without {self.kind}", where=self.where)
            return self.container, streams[0]
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def __exit__(self, of: Any, error: BaseException | None, trace: Any) -> None:
        if self.container is not None:
            self.container.close()
        self.stream.close()
        # Untrusted bytes: FFmpeg's errors are of many kinds, and none may stop a run.
        if isinstance(error, Exception) and not isinstance(error, SensoriumError):
            raise MediaError(f"damaged {self.kind}, or of an unknown format: {error}", where=self.where) from None
