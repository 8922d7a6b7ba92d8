"""Queues of groups in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin

from switchyard.audit.models import GroupQueues
from switchyard.conf import declared_yard
from switchyard.console.links import admin_site


class GroupQueuesForm(forms.ModelForm):
    """Form with a box for each queue of the topology, and for those that the row names and the topology has not."""

    queues = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)

    class Meta:
        model = GroupQueues
        fields = ("group", "queues")
        help_texts = {"group": "Of a group without such a row the rights hold on every queue."}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        declared = [queue.name for queue in declared_yard().queues]
        others = [name for name in self.instance.queues if name not in declared]
        field: Any = self.fields["queues"]
        field.choices = [(name, name) for name in declared] + [(name, f"{name}, not declared") for name in others]


@admin.register(GroupQueues, site=admin_site())
class GroupQueuesAdmin(admin.ModelAdmin):
    """Say on which queues the rights of a group hold."""

    form = GroupQueuesForm
    list_display = ("group", "queues")
