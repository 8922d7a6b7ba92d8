"""Typesetting of a statement as PDF with typst. Equal data and design give equal bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "typst"
TEMPLATE = FOLDER / "statement.typ"
FONTS = FOLDER / "fonts"


def render(content: dict[str, Any]) -> bytes:
    """Return the statement as PDF.

    Raises:
        typst.TypstError: the template does not fit the content.
    """
    import typst  # imported here: 7 MB that only a process that makes reports needs

    # The data is an input of the document, never part of its source, so it is never evaluated. System fonts
    # stay in, after ours, for names in scripts that Inter lacks.
    pdf: bytes = typst.compile(
        TEMPLATE,
        format="pdf",
        root=FOLDER,
        font_paths=[FONTS],
        sys_inputs={"data": _encode(content).decode()},
        timestamp=0,
    )
    return pdf


def checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a statement's content and design."""
    return hashlib.sha256(hashlib.sha256(TEMPLATE.read_bytes()).digest() + _encode(content)).hexdigest()


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
