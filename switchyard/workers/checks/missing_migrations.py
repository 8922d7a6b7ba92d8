"""Apps of the project whose models have no migrations, so that no command makes their tables."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Warning
from django.db.migrations.loader import MigrationLoader

from switchyard.workers.checks.http_clients import own_folders


def models_without_migrations() -> list[CheckMessage]:
    """W029: an app of this project has models that Django manages, and no migration.

    ``makemigrations`` without a label passes over an app that has no folder ``migrations``.
    """
    own = set(own_folders())
    return [
        Warning(
            "has models and no migrations, so its tables are never made",
            hint=f"Run manage.py makemigrations {config.label}, then manage.py migrate.",
            obj=config.name,
            id="switchyard.W029",
        )
        for config in apps.get_app_configs()
        if Path(config.path) in own and _has_tables(config) and not _has_migrations(config)
    ]


def _has_tables(config: AppConfig) -> bool:
    return any(model._meta.managed and not model._meta.proxy for model in config.get_models())


def _has_migrations(config: AppConfig) -> bool:
    """Return whether an app has a migration, or needs none because its ``MIGRATION_MODULES`` says so."""
    name, _ = MigrationLoader.migrations_module(config.label)
    if name is None:
        return True
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # the setting names a package that does not exist
        return False
    folders = spec.submodule_search_locations if spec is not None and spec.origin is not None else None
    return any(file.stem != "__init__" for folder in folders or () for file in Path(folder).glob("*.py"))
