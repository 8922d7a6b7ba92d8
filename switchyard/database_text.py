"""Text that every supported database can store."""

from __future__ import annotations


def storable(text: str) -> str:
    """Escape what UTF-8 or PostgreSQL refuse: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")
