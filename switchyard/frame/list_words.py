"""Words of Django's lists: what their search compares, and the time zone of their times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin import ModelAdmin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import FieldDoesNotExist
from django.db.models import DateTimeField, Model
from django.db.models.constants import LOOKUP_SEP
from django.utils.text import capfirst

from switchyard.console.formatting import zone
from switchyard.frame.row_facts import column_of

# Prefixes of Django's ``search_fields``.
PREFIXES = "^=@"


def search_hint(page: ModelAdmin[Any]) -> str:
    """Return what the search of a list compares: ``Address, job id or Message-ID``."""
    if page.search_help_text:
        return str(page.search_help_text)
    words = list(dict.fromkeys(_name(page.model, path.lstrip(PREFIXES)) for path in page.search_fields))
    last = words[-1:]
    return str(capfirst(" or ".join([", ".join(words[:-1]), *last] if words[:-1] else last)))


def with_zone(cl: ChangeList, headers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the headings of a list; that of a column with times names their zone."""
    return [_in_zone(cl, name, header) for name, header in zip(cl.list_display, headers, strict=False)]


def _in_zone(cl: ChangeList, name: Any, header: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(column_of(cl.model, name), DateTimeField):
        return header
    return header | {"text": f"{header['text']} ({zone()})"}


def _name(model: type[Model], path: str) -> str:
    """Return the names along a path: ``customer name`` for ``customer__name``; lookups at its end have none."""
    words: list[str] = []
    of: type[Model] | None = model
    for part in path.split(LOOKUP_SEP):
        if of is None:
            break
        try:
            field = of._meta.pk if part == "pk" else of._meta.get_field(part)
        except FieldDoesNotExist:
            break
        words.append(str(getattr(field, "verbose_name", part)))
        of = field.related_model
    return " ".join(words)
