"""SVG drawings -> PNG bytes, through resvg (no scripts, no network, no files)."""

from __future__ import annotations

from sensorium.core.errors import MediaError, MissingDependencyError


def render_svg(document: str, *, side_px: int) -> bytes:
    """A PNG with transparency, `side_px` wide.

    Raises:
        MissingDependencyError: resvg-py is not installed.
        MediaError: the document cannot be drawn.
    """
    try:
        import resvg_py
    except ImportError:
        raise MissingDependencyError(
            "drawing SVG files needs resvg-py", fix="pip install -e '.[data]' in the clone"
        ) from None
    try:
        return bytes(
            resvg_py.svg_to_bytes(svg_string=document, width=side_px, skip_system_fonts=True)
        )
    except ValueError as error:
        raise MediaError(f"not a drawable SVG: {error}") from None
