"""Spreadsheet cells: text is escaped so that no program evaluates it.

Excel, LibreOffice and Google Sheets take a cell that starts with one of a few characters for a formula, which can run
commands and send data away. Whatever a customer typed as a name lands in such cells. A quote in front makes it text.

Where a comma is the decimal sign, Excel parts a CSV file at semicolons, and there the quotes around our cells do not
hold: text with a semicolon or an end of line in it becomes several cells. Each of them gets its quote.
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
    """Return text that no spreadsheet evaluates as a formula.

    A quote is put in front when the text starts with a trigger, or has one after leading blanks or invisible
    characters, which import dialogs may strip; likewise in front of what follows a semicolon, a tab or an end of line.
    Text beyond 32,767 characters is cut and ends with ``…``.
    """
    start, *rest = _PARTED.split(text)
    # A tab or an end of line is a trigger itself where a text starts with it.
    leads = _first_visible(start) in TRIGGERS or (
        not _first_visible(start) and text[len(start) : len(start) + 1] in TRIGGERS
    )
    text = (QUOTE if leads else "") + start + "".join(map(_quoted, rest))
    if len(text) > MAX_CHARACTERS:
        text = text[: MAX_CHARACTERS - len(CUT)] + CUT
    return text


def _quoted(part: str) -> str:
    return QUOTE + part if _first_visible(part) in TRIGGERS and not _PARTED.fullmatch(part) else part


def _first_visible(text: str) -> str:
    return next((character for character in text if not _is_invisible(character)), "")


def _is_invisible(character: str) -> bool:
    # Separators (Z*), control and format characters (C*): blanks, byte order mark, zero-width space.
    return character not in TRIGGERS and unicodedata.category(character)[0] in "ZC"
