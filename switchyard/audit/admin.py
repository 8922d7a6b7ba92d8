"""Queues of groups in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from switchyard.audit.models import GroupQueues
from switchyard.conf import declared_yard
from switchyard.console.links import admin_site


@admin.register(GroupQueues, site=admin_site())
class GroupQueuesAdmin(admin.ModelAdmin):
    """Say on which queues the rights of a group hold."""

    list_display = ("group", "queues")

    def get_form(
        self, request: HttpRequest, obj: GroupQueues | None = None, change: bool = False, **options: Any
    ) -> type[forms.ModelForm[GroupQueues]]:
        """Return the form, with a box for each queue, and for those that the row names and the topology has not."""
        options["help_texts"] = {"group": "Of a group without such a row the rights hold on every queue."}
        declared = [queue.name for queue in declared_yard().queues]
        others = [name for name in (obj.queues if obj else ()) if name not in declared]
        choices = [(name, name) for name in declared] + [(name, f"{name}, not declared") for name in others]
        boxes = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple, choices=choices)
        form = super().get_form(request, obj, change, **options)
        return type(form.__name__, (form,), {"queues": boxes})
