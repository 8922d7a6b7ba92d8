"""The shared table: what a child writes is what its supervisor reads, also when the child was forked."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware, SkipMessage

from apps.platform.workers.slots import ChildState, Table, install


class Skips(Middleware):
    """Lets nothing run."""

    def before_process_message(self, broker: Any, message: Any) -> None:
        raise SkipMessage("not now")


def test_a_forked_child_writes_and_its_parent_reads() -> None:
    table = Table.create(3)
    pid = os.fork()
    if pid == 0:
        table.rows[1].set_ready()
        table.rows[1].started()
        os._exit(0)

    os.waitpid(pid, 0)

    assert table.rows[1].read() == ChildState(ready=True, beat_ns=0, taken=1, done=0, busy=1)
    assert table.rows[0].read() == table.rows[2].read() == ChildState(False, 0, 0, 0, 0)


def test_a_table_is_found_again_by_its_descriptor() -> None:
    table = Table.create(2)

    Table(table.fd, 2).rows[1].beat()

    assert table.rows[1].read().beat_ns > 0


def test_a_row_is_cleared_for_the_next_child() -> None:
    row = Table.create(1).rows[0]
    row.set_ready()
    row.started()

    row.clear()

    assert row.read() == ChildState(False, 0, 0, 0, 0)


def test_slots_count_what_succeeds_fails_and_is_skipped() -> None:
    for middleware, failing in (([], False), ([], True), ([Skips()], False)):
        broker = StubBroker(middleware=list(middleware))
        row = Table.create(1).rows[0]
        seen: list[int] = []

        @dramatiq.actor(broker=broker)
        def job(failing: bool = failing, seen: list[int] = seen, row: Any = row) -> None:
            seen.append(row.read().busy)
            if failing:
                raise ValueError("as asked")

        slots = install(broker, row)
        worker = Worker(broker, worker_timeout=10, worker_threads=1)
        worker.start()
        job.send()
        broker.join("default", fail_fast=False)
        worker.join()
        worker.stop()

        state = row.read()
        assert (state.taken, state.done, state.busy) == (1, 1, 0)
        assert seen == ([] if middleware else [1])
        assert slots.running == []
        assert broker.middleware[0] is slots
