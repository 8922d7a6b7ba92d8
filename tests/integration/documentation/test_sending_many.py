"""The function of the guide sends a reminder for each invoice, once the transaction has committed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import dramatiq
import pytest
from django.db import transaction

from switchyard.broker.interface import Facilities
from switchyard.jobs.queries import find_job
from tests.conftest import RunWorker
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for

RemindAll = Callable[[list[int]], list[str]]
reminded: list[int] = []


@pytest.fixture
def remind_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[RemindAll]:
    """The guide's function, with an actor that notes whom it reminds."""

    def remind(invoice_id: int) -> None:
        reminded.append(invoice_id)

    actors = ModuleType("apps.invoicing.actors")
    actors.remind = dramatiq.actor(remind)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "apps.invoicing", ModuleType("apps.invoicing"))
    monkeypatch.setitem(sys.modules, actors.__name__, actors)
    reminded.clear()
    [code] = code_blocks(read("docs/how-to/send-many-at-once.md"), "python")
    names: dict[str, RemindAll] = {}
    exec(compile(code, "send-many-at-once.md", "exec"), names)
    yield names["remind_all"]
    del dramatiq.get_broker().actors["remind"]


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_reminders_are_sent_with_the_commit(
    facilities: Facilities, run_worker: RunWorker, remind_all: RemindAll
) -> None:
    invoices = list(range(1_200))  # more than one call to the server
    with transaction.atomic():
        jobs = remind_all(invoices)
        assert find_job(jobs[0]) is None
    with run_worker("default"):
        wait_for(lambda: all((job := find_job(id_)) and job.ended for id_ in jobs[-3:] + jobs[:3]))
        wait_for(lambda: len(reminded) == len(invoices))

    assert sorted(reminded) == invoices
    assert {find_job(id_).state for id_ in jobs} == {"succeeded"}


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_reminders_are_not_sent_without_the_commit(facilities: Facilities, remind_all: RemindAll) -> None:
    with pytest.raises(RuntimeError, match="roll back"), transaction.atomic():
        [job] = remind_all([17])
        raise RuntimeError("roll back")

    assert find_job(job) is None
