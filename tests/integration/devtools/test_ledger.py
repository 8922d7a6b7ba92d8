"""The ledger of a yard under chaos names what is lost, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from devtools.attempts import Attempt, read_attempts
from devtools.chaos.ledger import Ledger, make_ledger
from devtools.chaos.monitor import EnqueueMonitor
from devtools.chaos.process import read_rate
from switchyard.broker.keys import Keys
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.history_streams import EndedJob
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.job_steps import ended_step
from tests.waiting import wait_for

OWNER = "pool.host.1.x.1.1/live"
ODD = 'an "odd" id\\ of ünïcode'


@pytest.fixture
def family(valkey: redis.Redis, valkey_url: str) -> QueueOperations:
    """A queue on an emptied server."""
    return QueueOperations(RedisCalls(connect(valkey_url)), Keys().queue("work"))


@pytest.fixture
def monitor(family: QueueOperations, valkey_url: str) -> Iterator[EnqueueMonitor]:
    """A monitor of the server."""
    monitor = EnqueueMonitor(valkey_url)
    yield monitor
    monitor.close()


def read_until(monitor: EnqueueMonitor, count: int) -> EnqueueMonitor:
    """Return the monitor once it has seen so many accepted."""

    def look() -> bool:
        monitor.read()
        return len(monitor.accepted) >= count

    wait_for(look)
    return monitor


def ledger_of(
    monitor: EnqueueMonitor, family: QueueOperations, outcomes: str = "", before: frozenset[str] = frozenset()
) -> Ledger:
    """Return the ledger of what the monitor has seen and the children have logged."""
    attempts = [Attempt(phase, 0, 0, id_) for phase, _, id_ in (line.partition(" ") for line in outcomes.splitlines())]
    return make_ledger(
        attempted=monitor.attempted,
        accepted=monitor.accepted,
        before=before,
        attempts=attempts,
        queues=[family],
        records=JobRecords(family.calls, Keys(), [family.keys.queue]),
    )


def connect_of(family: QueueOperations) -> redis.Redis:
    """Return a client of the same server."""
    return redis.Redis(connection_pool=family.calls._pool)


def test_monitor_sees_single_bulk_unique_and_odd_ids_and_what_was_refused(
    family: QueueOperations, monitor: EnqueueMonitor
) -> None:
    family.enqueue([Entry("one", b"{}")])
    family.enqueue([Entry(f"bulk-{n}", b'{"body": "\\" HSET"}') for n in range(3)], delay_ms=60_000)
    family.enqueue([Entry("unique", b"{}", "key"), Entry("its-twin", b"{}", "key")])
    family.enqueue([Entry(ODD, b"\x00\xff\r\n")])
    family.enqueue([Entry("one", b"{}")])

    read_until(monitor, 6)

    assert set(monitor.accepted) == {"one", "bulk-0", "bulk-1", "bulk-2", "unique", ODD}
    assert monitor.attempted == {*monitor.accepted, "its-twin"}


def test_a_message_that_is_nowhere_and_was_never_completed_is_lost(
    family: QueueOperations, monitor: EnqueueMonitor
) -> None:
    family.enqueue([Entry(name, b"{}") for name in ("completed", "gone", "waits", "buried", "acknowledged")])
    family.join(OWNER)
    grants = {grant.lease.id.decode(): grant.lease for grant in family.fetch(OWNER, 5, request=1).grants}
    family.release(OWNER, [grants["waits"]])
    family.dead_letter(grants["buried"], b"{}")
    family.ack(OWNER, [grants["completed"], grants["acknowledged"]])
    connect_of(family).hdel(family.keys.bodies, "gone")
    connect_of(family).hdel(family.keys.hold(OWNER), "gone")

    found = ledger_of(read_until(monitor, 5), family, "completed completed\n")

    assert set(found.lost) == {"gone", "acknowledged"}
    assert (found.completed, found.waiting, found.dead) == (("completed",), ("waits",), ("buried",))
    assert "lost 2" in str(found) and "gone" in str(found)


def test_what_was_cancelled_or_gave_up_elsewhere_is_not_lost(family: QueueOperations, monitor: EnqueueMonitor) -> None:
    family.enqueue([Entry(name, b"{}") for name in ("cancelled", "discarded")])
    queue = family.keys.queue
    ended = [EndedJob("cancelled", "cancelled"), EndedJob("discarded", "dead")]
    JobRecords(RedisCalls(connect_of(family)), Keys(), [queue]).write([ended_step(queue, job) for job in ended])
    administration.flush(family)

    found = ledger_of(read_until(monitor, 2), family)

    assert (found.cancelled, found.dead, found.lost) == (("cancelled",), ("discarded",), ())


def test_completed_twice_is_duplicated_and_completed_out_of_nothing_is_unexpected(
    family: QueueOperations, monitor: EnqueueMonitor
) -> None:
    family.enqueue([Entry("twice", b"{}")])
    outcomes = "completed twice\ncompleted twice\ncompleted twice\ncompleted stray\ncompleted old\nfailed twice\n"

    found = ledger_of(read_until(monitor, 1), family, outcomes, before=frozenset({"old"}))

    assert (found.duplicated, found.unexpected) == (("twice", "twice"), ("stray",))


def test_attempts_are_read_from_the_log_of_the_children(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("completed 1.5 2 a\nfailed 2 3 an id\n")

    assert read_attempts(tmp_path / "log") == [Attempt("completed", 1.5, 2, "a"), Attempt("failed", 2, 3, "an id")]
    assert read_attempts(tmp_path / "none") == []


def test_a_rate_is_read_in_faults_per_second() -> None:
    assert (read_rate("6/m"), read_rate("2/s"), read_rate("9/h")) == (0.1, 2, 0.0025)
