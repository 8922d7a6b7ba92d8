"""Templates of admin pages in the room's frame: Django's own, whatever theme the project's admin has."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import django.contrib.admin
from django.conf import settings
from django.template.backends.django import DjangoTemplates, Template

BACKEND = "django.template.backends.django.DjangoTemplates"
# In this order: Django's templates extend admin/base.html, and the first folder has the one with the room's frame.
FOLDERS = (
    Path(__file__).resolve().parents[1] / "frame" / "admin_templates",
    Path(django.contrib.admin.__file__).parent / "templates",
)


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
