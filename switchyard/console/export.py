"""Lists of pages as files: CSV for a table, JSON for a program. One function makes both, of every list.

Spreadsheets evaluate cells that start with one of a few characters: a quote makes it text. Where a comma is the decimal
sign, Excel splits a CSV file at semicolons and ignores the quotes around our cells: each part of a text with a
semicolon or an end of line gets its own quote.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from switchyard.broker.errors import ActRefused

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


FORMATS: Final = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
MOST: Final = 10_000


def export_of(request: HttpRequest, name: str, rows: Callable[[], Iterable[Mapping[str, Any]]]) -> HttpResponse | None:
    """Return a list as a file where its address has ``export=csv`` or ``export=json``, else ``None``.

    It has the first 10,000 rows; where there are more, its name says so, and the JSON has ``cut``. ``rows`` raises
    ``ValueError`` of an unusable filter, or ``ActRefused`` while they are read, where that cannot be done whole.
    """
    wanted = request.GET.get("export", "")
    if wanted not in FORMATS:
        return None
    try:
        listed = rows()
    except ValueError as error:
        return HttpResponse(f"export: {error}", status=400, content_type="text/plain; charset=utf-8")
    try:
        found = [dict(row) for row in islice(listed, MOST + 1)]
    except ActRefused as error:
        return HttpResponse(str(error), status=503, content_type="text/plain; charset=utf-8")
    cut, found = len(found) > MOST, found[:MOST]
    body = _csv(found) if wanted == "csv" else json.dumps({name: found, "cut": cut}, indent=2, default=str)
    response = HttpResponse(body, content_type=FORMATS[wanted])
    first = f"-first-{MOST}" if cut else ""
    file = f"{name}{first}-{timezone.now():%Y-%m-%dT%H%M%SZ}.{wanted}"
    response["Content-Disposition"] = f'attachment; filename="{file}"'
    return response


def _csv(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, str):
        return safe_text(value or "")
    return safe_text(json.dumps(value, ensure_ascii=False, default=str))
