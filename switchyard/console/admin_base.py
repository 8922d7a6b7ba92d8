"""Base classes of all admin pages, which stand in the room's frame: the same with and without a theme of the admin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from django.contrib import admin
from django.db import models
from django.forms import BaseInlineFormSet, CheckboxInput, CheckboxSelectMultiple, Field
from django.http import HttpRequest
from django.utils.html import format_html

from switchyard.console.links import job_url
from switchyard.console.list_queries import CheckedQuery
from switchyard.console.page_templates import Framed

__all__ = ["CheckboxSelectMultiple", "ModelAdmin", "TabularInline", "display", "job_link", "label_of"]

# Variants of a label, and the class of the same meaning in room.css.
LABEL_CLASSES = {"success": "sy-ok", "warning": "sy-warn", "danger": "sy-bad", "info": "sy-calm"}


class ModelAdmin(CheckedQuery, Framed):
    """Django's ``ModelAdmin`` in the room's frame.

    ``list_before_template`` names a template that stands above the list. ``menu_title`` is the name in the menu; the
    model's own where it is ``None``, and "" leaves the list out of the menu.
    """

    list_before_template: str | None = None
    menu_title: str | None = None


class NamedFormSet(BaseInlineFormSet):
    """Forms of a table, whose box for deleting a row has a name."""

    def get_deletion_widget(self) -> CheckboxInput:  # type: ignore[override]
        """Return the box."""
        return CheckboxInput(attrs={"aria-label": "Delete"})


class TabularInline(admin.TabularInline):
    """Django's ``TabularInline``, in whose table each field has the name that its column's heading shows."""

    formset = NamedFormSet

    def formfield_for_dbfield(self, db_field: models.Field, request: HttpRequest, **kwargs: Any) -> Field | None:
        """Return a form field that has its name itself: the heading of a column is no label."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None:
            field.widget.attrs.setdefault("aria-label", str(db_field.verbose_name))
        return field


def display(
    *,
    description: str,
    label: Mapping[Any, str] | None = None,
    ordering: str | None = None,
    empty_value: str | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a column.

    Args:
        label: Label variant of each value. The column then returns the value, or the value and its text.
    """

    def decorate(column: Callable[..., Any]) -> Callable[..., Any]:
        shown = column if label is None else _labelled(column, label)
        return admin.display(shown, description=description, ordering=ordering, empty_value=empty_value)

    return decorate


def _labelled(column: Callable[..., Any], variants: Mapping[Any, str]) -> Callable[..., str]:
    @wraps(column)
    def shown(*args: Any) -> str:
        result = column(*args)
        value, text = result if isinstance(result, tuple) else (result, result)
        return label_of(value, text, variants)

    return shown


def label_of(value: Any, text: str, variants: Mapping[Any, str]) -> str:
    """Return a state as the room's pages show it: a word with the shape and the colour of its variant."""
    return format_html('<span class="sy-word {}">{}</span>', LABEL_CLASSES.get(variants.get(value, ""), ""), text)


def job_link(job_id: str) -> str:
    """Return a link to a job's passport, or a dash."""
    address = job_url(job_id) if job_id else ""
    if not address:
        return job_id or "–"
    return format_html('<a class="sy-link sy-code" href="{}">{}</a>', address, job_id)
