"""The actor of the guide to cancelling stops where the guide says."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import dramatiq
import pytest

from switchyard.broker.interface import Facilities
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import request_cancel, submit
from switchyard.middleware.errors import Cancelled
from tests.conftest import RunWorker
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for


class Index(ModuleType):
    """Stand-in for the guide's index. Records the rebuilt pages and the exception that released its lock."""

    pages: list[int]
    ended_by: type[BaseException] | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the index."""
        try:
            yield
        except BaseException as cause:
            self.ended_by = type(cause)
            raise

    def rebuild(self, page: int) -> None:
        """Take a while."""
        self.pages.append(page)
        time.sleep(0.02)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    """The module that the guide imports."""
    catalogue, index = ModuleType("apps.catalogue"), Index("apps.catalogue.index")
    index.pages = []
    catalogue.index = index  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, catalogue.__name__, catalogue)
    monkeypatch.setitem(sys.modules, index.__name__, index)
    return index


@pytest.fixture
def rebuild_index(index: Index) -> Iterator[Any]:
    """The guide's actor."""
    code, _settings = code_blocks(read("docs/how-to/cancel-a-job.md"), "python")
    shown: dict[str, Any] = {}
    exec(compile(code, "cancel-a-job.md", "exec"), shown)
    yield shown["rebuild_index"]
    del dramatiq.get_broker().actors["rebuild_index"]


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_actor_stops_between_two_pages(
    facilities: Facilities, run_worker: RunWorker, index: Index, rebuild_index: Any
) -> None:
    job_id = submit(rebuild_index, kwargs={"page_count": 1_000})
    with run_worker("slow"):
        wait_for(lambda: index.pages)
        assert request_cancel(job_id) == "asked"
        wait_for(lambda: (job := find_job(job_id)) and job.ended)

    job = find_job(job_id)
    assert job is not None
    assert job.state == "cancelled"
    assert index.ended_by is Cancelled
    assert len(index.pages) < 1_000
