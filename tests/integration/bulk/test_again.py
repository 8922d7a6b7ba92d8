"""Bulk acts that run jobs again or now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.actor import Actor

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.bulk import runner
from switchyard.bulk.kinds import kind_of
from switchyard.bulk.models import BulkAct
from switchyard.history.models import JobRow
from tests.integration.bulk.conftest import Start

pytestmark = pytest.mark.django_db
Finish = Callable[[BulkAct], BulkAct]


@pytest.fixture
def work(facilities: Facilities) -> Iterator[Actor[Any, Any]]:
    """An actor of the real yard."""

    @dramatiq.actor(actor_name="work", queue_name="urgent")
    def work(number: int) -> None:
        pass

    yield work
    del dramatiq.get_broker().actors["work"]


def ended(number: int, **changes: Any) -> JobRow:
    """Write a job of the history."""
    at = now_ms() - 10_000 + number
    values = {
        "job_id": f"job-{number}", "sequence": 1, "state": "dead", "actor": "work", "queue": "urgent", "lane": "urgent",
        "attempts": 1, "generation": 0, "enqueued_at": at - 10, "finished_at": at, "not_succeeded_at": at,
        "arguments": f'{{"number":{number}}}',
    }  # fmt: skip
    return JobRow.objects.create(**(values | changes))


def sent(facilities: Facilities) -> list[int]:
    """Return the numbers of the jobs that wait."""
    calls, keys = facilities.records.calls, facilities.records.keys.queue("urgent")
    ids = [str(id_, "ascii") for id_ in calls.command("LRANGE", keys.waiting("live")[1], 0, -1)]
    messages = [facilities.transport.find_message("urgent", id_) for id_ in ids]
    return sorted(message.kwargs["number"] for message in messages if message is not None)


@pytest.mark.parametrize("killed", ["", "killed", "killed, and the broker has forgotten"])
def test_ended_jobs_run_again_once_each(
    killed: str, start: Start, finish: Finish, facilities: Facilities, work: Actor[Any, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(runner, "MOST", 4)
    for number in range(10):
        ended(number)
    ended(10, state="succeeded", not_succeeded_at=None)
    ended(11, arguments='{"number":"[redacted]"}')
    act = start("job.run_again", {"actor": "work", "state": "dead"}, reason="rates are back")
    if killed:
        begun = runner.begin(act.pk, act.run)
        assert begun is not None
        kind_of(act.kind).apply(begun[0], begun[0].hand[:3], repeated=False)
    forgotten = sent(facilities) if killed.endswith("forgotten") else []
    if forgotten:
        calls, keys = facilities.records.calls, facilities.records.keys.queue("urgent")
        for id_ in calls.command("LRANGE", keys.waiting("live")[1], 0, -1):
            ended(0, job_id=str(id_, "ascii"), state="succeeded", not_succeeded_at=None)
        calls.command("DEL", keys.bodies, keys.waiting("live")[1])

    act = finish(act)

    assert (act.state, act.done, act.skipped) == ("done", 10, 1)
    assert sent(facilities) == [number for number in range(10) if number not in forgotten]
    assert AuditEntry.objects.get(act="job.run_again").count == 10


def test_jobs_that_no_release_would_take_are_left_out(
    start: Start, finish: Finish, facilities: Facilities, work: Actor[Any, Any]
) -> None:
    ended(1)
    ended(2, arguments='{"number":[2]}')
    ended(3, arguments='{"numbers":3}')
    ended(4, tags=[""])
    ended(5)

    act = finish(start("job.run_again", {"actor": "work", "state": "dead"}))

    assert (act.state, act.done, act.error) == ("done", 2, "")
    assert act.skips == {"its arguments or tags do not fit this release": 3}
    assert sent(facilities) == [1, 5]


@pytest.mark.parametrize("filter", [{}, {"state": "running"}, {"colour": "red"}])
def test_second_run_of_everything_or_of_what_has_not_ended_is_refused(filter: dict[str, str], start: Start) -> None:
    with pytest.raises(ValueError, match=r"state|colour"):
        start("job.run_again", filter)
