"""Make text safe to be a spreadsheet's cell.

Excel, LibreOffice and Google Sheets take a cell that starts with one of a few characters for a formula, which can run
commands and send data away. Whatever a customer typed as a name lands in such cells. A quote in front makes it text.
"""

from __future__ import annotations

import unicodedata

# The last four are the full-width forms, which some programs fold to the plain ones.
TRIGGERS = frozenset("=+-@\t\r\n＝＋－＠")
QUOTE = "'"
# What an XLSX cell can hold; CSV is cut at the same length, so that both say the same.
MAX_CHARACTERS = 32_767
CUT = "…"


def safe_text(text: str) -> str:
    """Return text that no spreadsheet takes for a formula.

    A quote is put in front when the text starts with a trigger, or has one after leading blanks or invisible
    characters, which import dialogs may strip. Text beyond 32,767 characters is cut and ends with ``…``.
    """
    first = next((character for character in text if not _is_invisible(character)), "")
    if first and first in TRIGGERS:
        text = QUOTE + text
    if len(text) > MAX_CHARACTERS:
        text = text[: MAX_CHARACTERS - len(CUT)] + CUT
    return text


def _is_invisible(character: str) -> bool:
    # Separators (Z*), control and format characters (C*): blanks, byte order mark, zero-width space.
    return character not in TRIGGERS and unicodedata.category(character)[0] in "ZC"
