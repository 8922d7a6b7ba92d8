"""Set a statement as PDF with typst. Same data, same design: same bytes."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import typst

FOLDER = Path(__file__).parent / "typst"
TEMPLATE = FOLDER / "statement.typ"
FONTS = FOLDER / "fonts"


def render(content: dict[str, Any]) -> bytes:
    """Return the statement as PDF.

    Raises:
        typst.TypstError: the template does not fit the content.
    """
    return _compile(content, format="pdf")


def render_pages(content: dict[str, Any], *, ppi: float = 96) -> list[bytes]:
    """Return each page as PNG, for previews."""
    pages = _compile(content, format="png", ppi=ppi)
    return pages if isinstance(pages, list) else [pages]


def checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of what the statement says and of its design."""
    return hashlib.sha256(_design() + _encode(content)).hexdigest()


def _compile(content: dict[str, Any], **options: Any) -> Any:
    # The data is an input of the document, never part of its source: nothing in it can be evaluated. System fonts
    # stay in, after ours, for names in scripts that Inter lacks.
    return typst.compile(
        TEMPLATE,
        root=FOLDER,
        font_paths=[FONTS],
        sys_inputs={"data": _encode(content).decode()},
        timestamp=0,
        **options,
    )


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


@cache
def _design() -> bytes:
    return hashlib.sha256(TEMPLATE.read_bytes()).digest()
