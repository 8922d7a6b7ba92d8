"""Cancellation of a job whose caller is killed after its first call: the end and its row are there."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest

from switchyard.broker.admin.cancel import cancel
from switchyard.broker.admin.purge import finish, set_aside, undo
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import Facilities, facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.history_streams import HistoryStreams, decode_rows
from switchyard.broker.stores.job_records import JobRecords
from tests.conftest import BuildBroker
from tests.factories.yards import small_yard
from tests.waiting import wait_for


@pytest.fixture
def broker(yard_broker: BuildBroker) -> RedisBroker:
    broker = yard_broker(small_yard())

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        pass

    return broker


def rows(parts: Facilities) -> list[tuple[str, str, bytes]]:
    streams = HistoryStreams(parts.records.calls, parts.records.keys, parts.records.queues)
    found = [row for entry in streams.read(limit=100) for row in decode_rows(entry.rows)]
    return [(row.id, row.state, row.body) for row in found]


@pytest.mark.parametrize("delay_ms", [None, 3_600_000])
def test_a_kill_after_the_first_call_leaves_end_and_row(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch, delay_ms: int | None
) -> None:
    parts = facilities(broker)
    job_id = broker.actors["job"].send_with_options(args=(7,), delay=delay_ms).message_id

    def killed(*args: Any, **options: Any) -> None:
        raise BrokerUnavailable("write", "killed")

    with monkeypatch.context() as kill:
        kill.setattr(JobRecords, "write", killed)
        with pytest.raises(BrokerUnavailable):
            cancel(parts, job_id)

    record = parts.records.read(job_id)
    assert record is not None and record.end_recorded and record.state == "cancelled" and record.args == [7]
    [(row_id, state, body)] = rows(parts)
    assert (row_id, state) == (job_id, "cancelled") and b"7" in body
    assert cancel(parts, job_id) == "ended"


@pytest.mark.parametrize("delay_ms", [None, 3_600_000])
def test_a_cancellation_has_one_row(broker: RedisBroker, delay_ms: int | None) -> None:
    parts = facilities(broker)
    job_id = broker.actors["job"].send_with_options(args=(7,), delay=delay_ms).message_id

    assert cancel(parts, job_id) == "cancelled"

    assert [row[:2] for row in rows(parts)] == [(job_id, "cancelled")]


@pytest.mark.parametrize("delay_ms", [None, 500])
@pytest.mark.parametrize("undone", [True, False])
def test_a_job_that_a_purge_has_set_aside_is_cancelled_once(
    broker: RedisBroker, run_worker: Any, delay_ms: int | None, undone: bool
) -> None:
    parts, family = facilities(broker), broker.families["work"]
    job = broker.actors["job"]
    kept = job.send(1).message_id
    job_id = job.send_with_options(args=(7,), delay=delay_ms, unique_key="one").message_id
    set_aside(family, "p", by="me", undo_ms=60_000 if undone else 0)

    answers = cancel(parts, job_id), cancel(parts, job_id)
    if undone:
        undo(family, "p")
        with run_worker(broker=broker):
            wait_for(lambda: not broker.client.hlen(family.keys.bodies))
    finish(family, parts.records)

    assert answers == ("cancelled", "ended")
    assert parts.records.states([kept, job_id]) == ["succeeded" if undone else "cancelled", "cancelled"]
    assert [state for id_, state, _ in rows(parts) if id_ == job_id] == ["cancelled"]
    assert broker.client.keys(f"{broker.keys.queue('work').base}*aside*") == []
    again = job.send_with_options(args=(8,), unique_key="one")
    assert again.message_id != job_id
