"""Base classes of all admin pages: unfold's if ``unfold`` is in ``INSTALLED_APPS``, Django's own otherwise."""

from __future__ import annotations

from django.apps import apps

from apps.platform.console.list_queries import CheckedQuery

if apps.is_installed("unfold"):
    from unfold.admin import ModelAdmin as ThemedAdmin
    from unfold.admin import TabularInline
    from unfold.decorators import display
    from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget as CheckboxSelectMultiple
else:
    from django.contrib.admin import TabularInline
    from django.forms import CheckboxSelectMultiple

    from apps.platform.console.stock_admin import StockAdmin as ThemedAdmin
    from apps.platform.console.stock_admin import display

__all__ = ["CheckboxSelectMultiple", "ModelAdmin", "TabularInline", "display"]


class ModelAdmin(CheckedQuery, ThemedAdmin):
    """``ModelAdmin`` of every admin page."""
