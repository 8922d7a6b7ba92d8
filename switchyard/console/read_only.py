"""Permissions of admin pages for rows that only the program writes."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.admin.options import BaseModelAdmin
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse


class ReadOnly(BaseModelAdmin):
    """Refuse adding and changing rows by hand, and deleting them unless ``deletable`` is set.

    Stands before ``ModelAdmin`` or ``TabularInline`` in the list of base classes. Viewing keeps its own permission.
    """

    deletable = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether rows are deletable and the user has Django's permission to delete them."""
        return self.deletable and super().has_delete_permission(request, obj)

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> HttpResponseRedirect:
        """Lead to the list, where Django leads to the start page: rows go by their age, and links to them stay."""
        name = opts.verbose_name
        messages.warning(request, f"There is no {name} with the id “{object_id[:100]}”; old rows are deleted in time.")
        return HttpResponseRedirect(reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist"))
