"""The list of scheduled jobs: the next to be due first, over all queues, in pages that miss and repeat none."""

from __future__ import annotations

import dramatiq
import pytest

from switchyard.broker.admin.scheduled import state_counts
from switchyard.broker.interface import facilities
from switchyard.history.filters import Filter
from switchyard.jobs.listing import pages as scheduled
from switchyard.jobs.listing.pages import find_jobs
from switchyard.jobs.queries import families
from switchyard.jobs.services import request_cancel, submit
from tests.integration.jobs import probe_actors

SCHEDULED = Filter(states=("scheduled",))
MINUTE_MS = 60_000


@pytest.fixture(autouse=True)
def database(transactional_db: None) -> None: ...


def pages_of(wanted: Filter, limit: int = 2) -> list[list[str]]:
    after, pages = "", []
    while True:
        page = find_jobs(wanted, after=after, limit=limit)
        pages.append([line.id for line in page.jobs])
        if not (after := page.after):
            return pages


def send(minutes: int, *, actor: str = "add", owner: str = "") -> str:
    kwargs = {"a": minutes, "b": 0} if actor == "add" else {"text": str(minutes)}
    return submit(getattr(probe_actors, actor), owner=owner, delay_ms=minutes * MINUTE_MS, kwargs=kwargs)


def test_the_next_to_be_due_is_first_over_all_queues_and_each_is_listed_once() -> None:
    minutes = [50, 3, 90, 20, 7]
    sent = {send(at): at for at in minutes}
    other = dramatiq.get_broker().actors["probe_add"]
    message = other.message_with_options(args=(1, 2)).copy(queue_name="urgent")
    sent[dramatiq.get_broker().enqueue(message, delay=10 * MINUTE_MS).message_id] = 10
    submit(probe_actors.add, kwargs={"a": 1, "b": 2})
    request_cancel(send(1))

    pages = pages_of(SCHEDULED)

    assert [sent[id_] for page in pages for id_ in page] == sorted(sent.values())
    assert [len(page) for page in pages] == [2, 2, 2]
    assert state_counts(families(), facilities().records)["scheduled"] == len(sent)
    assert pages_of(Filter(states=("scheduled",), queue="urgent")) == [[message.message_id]]


def test_a_filter_looks_through_a_bounded_number_and_the_next_page_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled, "LOOKED_THROUGH", 4)
    monkeypatch.setattr(scheduled, "AT_ONCE", 2)
    for minute in range(1, 8):
        send(minute)
    mine = [send(minute, owner="user:1") for minute in (9, 10)]

    pages = pages_of(Filter(states=("scheduled",), owner="user:1"))

    assert pages[0] == []
    assert [id_ for page in pages for id_ in page] == mine
