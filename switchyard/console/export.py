"""Lists of pages as files: CSV for a table, JSON for a program. One function makes both, of every list."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from switchyard.broker.errors import ActRefused
from switchyard.console.cells import safe_text

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
