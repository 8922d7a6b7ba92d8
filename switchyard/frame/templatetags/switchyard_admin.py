"""Filters and tags of Django's lists and forms in the room's frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import template
from django.contrib.admin.helpers import Fieldset, InlineAdminFormSet
from django.contrib.admin.views.main import ChangeList

from switchyard.frame import list_words, row_facts

register = template.Library()

register.filter("fact", row_facts.shown)
register.filter("fact_name", row_facts.label)
register.simple_tag(list_words.with_zone, name="headings_of")


@register.filter
def search_hint(cl: ChangeList) -> str:
    """Return what the search of a list compares."""
    return list_words.search_hint(cl.model_admin)


@register.filter
def fields_of(fieldset: Fieldset) -> list[Any]:
    """Return the fields of a part of a form, in order."""
    return [field for line in fieldset for field in line]


@register.filter
def only_facts(fields: Sequence[Any]) -> bool:
    """Return whether none of some fields can be changed."""
    return bool(fields) and all(field.is_readonly for field in fields)


@register.filter
def only_rows(formset: InlineAdminFormSet) -> bool:
    """Return whether no row of a table can be added, changed or deleted."""
    if formset.has_add_permission or (formset.has_delete_permission and formset.formset.can_delete):
        return False
    return not formset.has_change_permission or all(
        field["name"] in formset.readonly_fields for field in formset.fields()
    )
