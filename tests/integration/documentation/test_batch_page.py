"""The functions of the guide import rows as a batch, whose members add others, and publish what was imported."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.batches.services import Batch
from switchyard.broker.interface import Facilities
from switchyard.middleware.errors import PermanentFailure
from tests.conftest import RunWorker
from tests.integration.documentation.shown import run_block, stand_in, wait_counting

pytestmark = pytest.mark.usefixtures("transactional_db")


class Import:
    """The guide's model: what was done."""

    broken: set[int] = set()
    done: list[tuple[Any, ...]] = []

    @classmethod
    def save_row(cls, import_id: int, row: int) -> Any:
        if row in cls.broken:
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
def page(monkeypatch: pytest.MonkeyPatch, facilities: Facilities) -> dict[str, Any]:
    """Names that the guide's code defines."""
    stand_in(monkeypatch, "apps.catalog.models", Import=Import)
    monkeypatch.setattr(Import, "broken", set())
    monkeypatch.setattr(Import, "done", [])
    return run_block("count-jobs-as-a-batch")


def test_the_guides_import_is_published_once_all_rows_and_pictures_are_there(
    page: dict[str, Any], run_worker: RunWorker
) -> None:
    made = Batch(page["import_all"](7, 6))
    with run_worker("default"):
        wait_counting(lambda: ("published", 7) in Import.done)

    assert Import.done[-1] == ("published", 7)
    assert [kind for kind, *_ in Import.done].count("picture") == 3
    assert (made.progress().state, made.progress().done, made.progress().name) == ("succeeded", 9, "import 7")


def test_the_guides_import_warns_of_a_row_that_failed(page: dict[str, Any], run_worker: RunWorker) -> None:
    Import.broken = {1}
    made = Batch(page["import_all"](8, 2))
    with run_worker("default"):
        wait_counting(lambda: ("warned", 8, 1) in Import.done and made.progress().state == "complete")

    assert ("published", 8) not in Import.done
