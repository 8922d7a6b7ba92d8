"""Migrations by their files."""

from django.apps import apps
from django.db.migrations.loader import MigrationLoader
from django.test import override_settings

from switchyard.workers.checks.database import migrations_on_disk

MOVED = {"switchyard_audit": None, "switchyard_bulk": "missing_module", "switchyard_alerts": "missing.migrations"}


@override_settings(MIGRATION_MODULES=MOVED)
def test_files_name_the_migrations_that_django_loads() -> None:
    found = set(migrations_on_disk())

    assert found == MigrationLoader(None, ignore_no_migrations=True).disk_migrations.keys()
    assert ("auth", "0001_initial") in found and apps.is_installed("switchyard.bulk")
