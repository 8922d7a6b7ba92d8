"""Pages of an admin class in the room's frame: Django's templates and scripts, whatever theme the admin has."""

from __future__ import annotations

from functools import cache
from typing import Any

from django import forms
from django.conf import settings
from django.contrib.admin.widgets import AdminSplitDateTime
from django.db.models import Field
from django.http import HttpRequest
from django.template.backends.django import DjangoTemplates, Template

from switchyard.console.formatting import zone
from switchyard.console.page_folders import FOLDERS
from switchyard.console.row_pages import RowPage

BACKEND = "django.template.backends.django.DjangoTemplates"


def framed(name: str) -> Template:
    """Return a template of Django's admin, such as ``admin/change_list.html``, that extends the room's frame."""
    return _engine().get_template(name)


@cache
def _engine() -> DjangoTemplates:
    """Return the project's template engine with our folders before those of its apps."""
    declared: dict[str, Any] = next((one for one in settings.TEMPLATES if one["BACKEND"] == BACKEND), {})
    options = {name: value for name, value in declared.get("OPTIONS", {}).items() if name != "loaders"}
    folders = [*FOLDERS, *declared.get("DIRS", ())]
    return DjangoTemplates({"NAME": "switchyard", "DIRS": folders, "APP_DIRS": True, "OPTIONS": options})


# Scripts of Django that a theme in front of it replaces with its own of the same name.
SCRIPTS = {
    "admin/js/actions.js": "switchyard_frame/django/actions.js",
    "admin/js/admin/RelatedObjectLookups.js": "switchyard_frame/django/RelatedObjectLookups.js",
}


class Framed(RowPage):
    """Django's pages in the room's frame. Stands before another admin class in the list of base classes."""

    def formfield_for_dbfield(self, db_field: Field, request: HttpRequest, **options: Any) -> Any:
        """Return the form's field; of a time, which are two, each says what it is, and the label its time zone."""
        field = super().formfield_for_dbfield(db_field, request, **options)
        widget = getattr(field, "widget", None)
        if field is not None and isinstance(widget, AdminSplitDateTime):
            field.label = f"{field.label} ({zone()})"
            for part, word in zip(widget.widgets, ("date", "time"), strict=True):
                part.attrs.setdefault("aria-label", f"{field.label}, {word}")
        return field

    @property
    def media(self) -> forms.Media:
        """Return the scripts and style sheets of the class, with Django's own."""
        found = super().media
        scripts = [SCRIPTS.get(path, path) for path in found._js]  # type: ignore[attr-defined]
        return forms.Media(css=found._css, js=scripts)  # type: ignore[attr-defined]

    @property
    def change_list_template(self) -> Template:  # type: ignore[override]
        """Return the page of the list."""
        return framed("admin/change_list.html")

    @property
    def change_form_template(self) -> Template:  # type: ignore[override]
        """Return the page of one row, and of a new one."""
        return framed("admin/change_form.html")

    @property
    def delete_confirmation_template(self) -> Template:  # type: ignore[override]
        """Return the question before a row is deleted."""
        return framed("admin/delete_confirmation.html")

    @property
    def delete_selected_confirmation_template(self) -> Template:  # type: ignore[override]
        """Return the question before chosen rows are deleted."""
        return framed("admin/delete_selected_confirmation.html")

    @property
    def object_history_template(self) -> Template:  # type: ignore[override]
        """Return the page of a row's changes."""
        return framed("admin/object_history.html")
