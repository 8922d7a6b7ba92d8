"""The admin's modules are imported with the addresses, not whenever Django starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks


class LateAdmin(SimpleAdminConfig):
    """Leave the admin's modules to ``project.urls``.

    A pool, a scheduler and most commands answer no request: without them a start takes a fifth less processor time, and
    each process 14 MB less.
    """

    def ready(self) -> None:
        """Register Django's own checks of admins, of which the second imports what it checks."""
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(check_admins, checks.Tags.admin)


def check_admins(app_configs: Sequence[AppConfig] | None, **options: Any) -> list[checks.CheckMessage]:
    """Import the modules and check them. Checks run in any order: those of the addresses may not have run yet."""
    admin.autodiscover()
    found: list[checks.CheckMessage] = check_admin_app(app_configs, **options)
    return found
