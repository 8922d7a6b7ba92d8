"""The functions of the guide import rows as a batch, whose members add others, and publish what was imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import dramatiq
import pytest

from switchyard.batches.counting import count_batches
from switchyard.batches.services import Batch
from switchyard.broker.interface import Facilities
from tests.conftest import RunWorker
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("transactional_db")


class Import:
    """The guide's model: what was done."""

    broken: set[int] = set()
    done: list[tuple[Any, ...]] = []

    @classmethod
    def save_row(cls, import_id: int, row: int) -> Any:
        if row in cls.broken:
            from switchyard.middleware.errors import PermanentFailure

            raise PermanentFailure("no such row")
        cls.done.append(("row", row))
        return SimpleNamespace(pictures=[f"https://example.org/{row}"] if row % 2 else [])

    @classmethod
    def save_picture(cls, import_id: int, address: str) -> None:
        cls.done.append(("picture", address))

    @classmethod
    def publish(cls, import_id: int) -> None:
        cls.done.append(("published", import_id))

    @classmethod
    def warn(cls, import_id: int, failed: int) -> None:
        cls.done.append(("warned", import_id, failed))


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, facilities: Facilities) -> Iterator[dict[str, Any]]:
    """Names that the guide's code defines."""
    models = ModuleType("apps.catalog.models")
    models.Import = Import  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "apps.catalog", ModuleType("apps.catalog"))
    monkeypatch.setitem(sys.modules, models.__name__, models)
    monkeypatch.setattr(Import, "broken", set())
    monkeypatch.setattr(Import, "done", [])
    [code] = code_blocks(read("docs/how-to/count-jobs-as-a-batch.md"), "python")
    names: dict[str, Any] = {}
    exec(compile(code, "count-jobs-as-a-batch.md", "exec"), names)
    yield names
    for name in ("import_row", "fetch_picture", "publish", "warn"):
        del dramatiq.get_broker().actors[name]


def counted(found: Any) -> Any:
    def ask() -> Any:
        count_batches()
        return found()

    return ask


def test_the_guides_import_is_published_once_all_rows_and_pictures_are_there(
    page: dict[str, Any], run_worker: RunWorker
) -> None:
    made = Batch(page["import_all"](7, 6))
    with run_worker("default"):
        wait_for(counted(lambda: ("published", 7) in Import.done))

    assert Import.done[-1] == ("published", 7)
    assert [kind for kind, *_ in Import.done].count("picture") == 3
    assert (made.progress().state, made.progress().done, made.progress().name) == ("succeeded", 9, "import 7")


def test_the_guides_import_warns_of_a_row_that_failed(page: dict[str, Any], run_worker: RunWorker) -> None:
    Import.broken = {1}
    made = Batch(page["import_all"](8, 2))
    with run_worker("default"):
        wait_for(counted(lambda: ("warned", 8, 1) in Import.done and made.progress().state == "complete"))

    assert ("published", 8) not in Import.done
