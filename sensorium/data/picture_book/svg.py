"""SVG drawings -> PNG bytes, through resvg (no scripts, no network, and no files).

resvg itself would read any local picture that a drawing names, so a drawing that refers to
anything outside itself is refused before resvg sees it.
"""

from __future__ import annotations

from xml.parsers import expat

from sensorium.core.errors import MediaError, MissingDependencyError


def render_svg(document: str, *, side_px: int) -> bytes:
    """A PNG with transparency, `side_px` wide.

    Raises:
        MissingDependencyError: resvg-py is not installed.
        MediaError: the document cannot be drawn, or refers to something outside itself.
    """
    try:
        import resvg_py
    except ImportError:
        raise MissingDependencyError(
            "drawing SVG files needs resvg-py", fix="pip install -e '.[data]' in the clone"
        ) from None
    _refuse_references(document)
    try:
        return bytes(
            resvg_py.svg_to_bytes(svg_string=document, width=side_px, skip_system_fonts=True)
        )
    except ValueError as error:
        raise MediaError(f"not a drawable SVG: {error}") from None


def _refuse_references(document: str) -> None:
    """Look at every `href`, whatever its prefix, quotes or entities: parsed, not searched for."""

    def start(name: str, attributes: dict[str, str]) -> None:
        # resvg takes an image's `#...` for the name of a file.
        within = ("data:",) if _local(name) == "image" else ("#", "data:")
        for key, value in attributes.items():
            if _local(key) == "href" and not value.startswith(within):
                raise MediaError(
                    f"the SVG's <{name}> refers to {value[:80]!r}",
                    expected=f"{' or '.join(within)} alone: nothing outside the drawing is read",
                    fix="put the picture into the drawing as data:, or leave it out",
                )

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        raise MediaError(f"not a drawable SVG: {error}") from None


def _local(name: str) -> str:
    """A name without its prefix; which prefix stands for XLink is the document's choice."""
    return name.rpartition(":")[2]
