"""Two of unfold's features on Django's stock admin: coloured state labels, and a panel above a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from django import forms
from django.contrib import admin
from django.utils.html import format_html

# unfold's label variants, and the class of the same meaning in room.css.
LABEL_CLASSES = {"success": "sy-ok", "warning": "sy-warn", "danger": "sy-bad", "info": "sy-calm"}


class StockAdmin(admin.ModelAdmin):
    """Django's ``ModelAdmin`` with ``list_before_template``, as unfold has it."""

    change_list_template = "switchyard_operations/stock_change_list.html"
    list_before_template: str | None = None

    @property
    def media(self) -> forms.Media:
        """Return Django's own media and the style sheet of labels and panels."""
        return super().media + forms.Media(css={"all": ("switchyard_operations/room.css",)})


def display(
    *,
    description: str,
    label: Mapping[Any, str] | None = None,
    ordering: str | None = None,
    empty_value: str | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare a column, as ``unfold.decorators.display`` does.

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
        return format_html('<span class="sy-word {}">{}</span>', LABEL_CLASSES.get(variants.get(value, ""), ""), text)

    return shown
