"""The code of a how-to, run as a module, or as an app whose models have tables and whose actors have a broker."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.db import connection
from dramatiq.broker import Broker

from switchyard.batches.counting import count_batches
from tests.factories.brokers import the_global_broker
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for

MODULE = re.compile(r"# (apps/(\w+)/\w+)\.py\n")


def blocks(page: str) -> list[str]:
    return code_blocks(read(f"docs/how-to/{page}.md"), "python")


def run_block(page: str, number: int = 0) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(blocks(page)[number], f"{page}.md", "exec"), names)
    return names


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **names: object) -> None:
    """Give a how-to the module that it imports, with its package."""
    for one in (name.rpartition(".")[0], name):
        monkeypatch.setitem(sys.modules, one, ModuleType(one))
    vars(sys.modules[name]).update(names)


def wait_counting(found: Callable[[], object]) -> None:
    """Wait for something that batches lead to."""
    wait_for(lambda: count_batches() >= 0 and found())


@contextmanager
def shown_app(page: str, broker: Broker, **others: object) -> Iterator[dict[str, ModuleType]]:
    """Run the blocks that begin with the path of a module, and yield the modules by their last names.

    Needs ``transactional_db``. The broker is the global one meanwhile; the package has the other names, too.
    """
    found = [(path, code) for code in blocks(page) if (path := MODULE.match(code))]
    label = found[0][0][2]
    package = ModuleType(f"apps.{label}")
    package.__path__ = [str(Path(__file__).parent)]
    vars(package).update(others)
    modules = {package.__name__: package}
    config = AppConfig(package.__name__, package)
    config.apps, config.models = apps, apps.all_models[label]
    apps.app_configs[label] = config
    try:
        with the_global_broker(broker):
            for path, code in found:
                name = path[1].replace("/", ".")
                modules[name] = ModuleType(name)
                sys.modules.update(modules)
                exec(compile(code, f"{page}.md", "exec"), vars(modules[name]))
            apps.clear_cache()
            with _tables(config):
                yield {name.rpartition(".")[2]: module for name, module in modules.items()}
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        del apps.app_configs[label], apps.all_models[label]
        apps.clear_cache()


@contextmanager
def _tables(config: AppConfig) -> Iterator[None]:
    models = list(config.get_models())
    with connection.schema_editor() as editor:
        for model in models:
            editor.create_model(model)
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            for model in reversed(models):
                editor.delete_model(model)
