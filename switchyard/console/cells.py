"""Text in cells of spreadsheets, which evaluate cells that start with one of a few characters: a quote makes it text.

Where a comma is the decimal sign, Excel splits a CSV file at semicolons and ignores the quotes around our cells: each
part of a text with a semicolon or an end of line gets its own quote.
"""

from __future__ import annotations

import re
import unicodedata

# The last four are the full-width forms, which some programs fold to the plain ones.
TRIGGERS = frozenset("=+-@\t\r\n＝＋－＠")
QUOTE = "'"
# Limit of an XLSX cell; CSV is cut at the same length, so that both hold the same text.
MAX_CHARACTERS = 32_767
CUT = "…"
_PARTED = re.compile(r"([;\t\r\n])")


def safe_text(text: str) -> str:
    """Return text that no spreadsheet evaluates as a formula, nor once its leading blanks are stripped; perhaps cut."""
    start, *rest = _PARTED.split(text)
    # A leading tab or end of line is itself a trigger.
    first = _first_visible(start) or text[len(start) : len(start) + 1]
    text = (QUOTE if first in TRIGGERS else "") + start + "".join(map(_quoted, rest))
    if len(text) > MAX_CHARACTERS:
        text = text[: MAX_CHARACTERS - len(CUT)] + CUT
    return text


def _quoted(part: str) -> str:
    # A quotation mark is doubled in the file: at the start of a cell the two are an empty text, and the rest follows.
    return QUOTE + part if _first_visible(part.replace('"', "")) in TRIGGERS and not _PARTED.fullmatch(part) else part


def _first_visible(text: str) -> str:
    # Separators (Z*), control and format characters (C*) are not: blanks, byte order mark, zero-width space.
    return next((each for each in text if each in TRIGGERS or unicodedata.category(each)[0] not in "ZC"), "")
