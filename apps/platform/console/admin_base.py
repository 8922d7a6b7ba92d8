"""Base classes of all admin pages: unfold's if ``unfold`` is in ``INSTALLED_APPS``, Django's own otherwise."""

from __future__ import annotations

from django.apps import apps

if apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin, TabularInline
    from unfold.decorators import display
    from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget as CheckboxSelectMultiple
else:
    from django.contrib.admin import TabularInline
    from django.forms import CheckboxSelectMultiple

    from apps.platform.console.stock_admin import ModelAdmin, display

__all__ = ["CheckboxSelectMultiple", "ModelAdmin", "TabularInline", "display"]
