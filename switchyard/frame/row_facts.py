"""Values of a row as its page shows them: times with their zone and age, states as badges, sizes in their unit."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from django.contrib.admin.helpers import AdminReadonlyField
from django.core.exceptions import FieldDoesNotExist
from django.db.models import DateTimeField, Field, JSONField, Model
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst

from switchyard.console.formatting import ago, duration, zone

NOTHING = "–"
# Pictures that Django shows for a truth, whose meaning is their text for readers alone.
TRUTH = re.compile(r'<img src="[^"]*/icon-(yes|no|unknown)\.svg" alt="[^"]*">')
TRUTHS = {"yes": "Yes", "no": "No", "unknown": NOTHING}
# Units that our columns carry in their names, and what Django's heading shows of them.
UNIT = re.compile(r" (bytes|ms|\(ms\))$")


def shown(field: AdminReadonlyField) -> SafeString:
    """Return the value of a field that cannot be changed."""
    name, row, page = field.field["field"], field.form.instance, field.model_admin
    column = column_of(type(row), name)
    if column is None:
        return worded(field.contents()) or SafeString(NOTHING)
    value = getattr(row, str(name), None)
    if value is None or value == "":
        return SafeString(NOTHING)
    if isinstance(column, DateTimeField):
        return moment(value)
    badge = getattr(page, getattr(page, "badge", "") or "_", None)
    if badge is not None and column.choices and getattr(badge, "admin_order_field", None) == name:
        return format_html("{}", badge(row))
    if isinstance(column, JSONField):
        return format_html(
            '<pre class="sy-pre sy-wrap" tabindex="0">{}</pre>', json.dumps(value, indent=2, ensure_ascii=False)
        )
    return _measured(str(name), value) or _plain(field, str(name), value, page)


def label(field: AdminReadonlyField) -> str:
    """Return the name of a field, without the unit that its value shows."""
    return str(capfirst(UNIT.sub("", str(field.field["label"]))))


def moment(at: datetime) -> SafeString:
    """Return a time with its zone and its age."""
    local = timezone.localtime(at) if timezone.is_aware(at) else at
    return format_html(
        '<time datetime="{}">{} {}</time> <span class="sy-small">{}</span>',
        local.isoformat(),
        f"{local.day} {local:%b %Y %H:%M:%S}",
        zone(),
        ago(at) if timezone.is_aware(at) else "",
    )


def worded(cell: str) -> SafeString:
    """Return a cell with the words Yes and No instead of their pictures."""
    return mark_safe(TRUTH.sub(lambda found: TRUTHS[found[1]], cell))  # noqa: S308  Django made the cell


def column_of(model: type[Model], name: Any) -> Field[Any, Any] | None:
    """Return the model's column of a name; ``None`` for a method and a relation to many."""
    try:
        found = model._meta.get_field(name) if isinstance(name, str) else None
    except FieldDoesNotExist:
        return None
    return found if isinstance(found, Field) else None


def _measured(name: str, value: Any) -> SafeString | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if name.endswith("_bytes"):
        return format_html('{} <span class="sy-small">{} bytes</span>', filesizeformat(value), f"{value:,}")
    if name.endswith("_ms"):
        return SafeString(duration(value))
    return SafeString(f"{value:,}") if name.endswith("_count") else None


def _plain(field: AdminReadonlyField, name: str, value: Any, page: Any) -> SafeString:
    if name in getattr(page, "code_fields", ()):
        return format_html('<code class="sy-code">{}</code>', value)
    return worded(field.contents())
