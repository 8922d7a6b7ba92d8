"""Log lines of attempts: those of a failed one are in its row, bounded and without secrets; others are forgotten."""

from __future__ import annotations

import logging
import threading
from typing import Any

import dramatiq
import pytest
import structlog
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.history_streams import LOGS_LIMIT_BYTES, EndedJob, decode_rows
from switchyard.middleware.status import Status
from tests.conftest import BuildBroker
from tests.factories.yards import small_yard
from tests.waiting import wait_for


def rows_of(broker: RedisBroker) -> list[EndedJob]:
    entries = broker.client.xrange(broker.keys.queue("work").history)
    return [row for _, fields in entries for row in decode_rows(fields[b"rows"])]


def run(broker: RedisBroker, run_worker: Any, actor: dramatiq.Actor[..., Any], *args: Any) -> list[EndedJob]:
    logging.getLogger().setLevel(logging.INFO)
    with run_worker(broker=broker):
        job_id = actor.send(*args).message_id
        records = facilities(broker).records
        wait_for(lambda: (found := records.read(job_id)) and found.ended)
    return rows_of(broker)


def test_each_failed_attempt_keeps_its_own_lines(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(small_yard(max_retries=1))

    @dramatiq.actor(broker=broker, queue_name="work")
    def failing() -> None:
        message = dramatiq.middleware.CurrentMessage.get_current_message()
        logging.getLogger("shop").info(
            "attempt with %s before", (message.options if message else {}).get("attempts", 0)
        )
        structlog.get_logger("shop").warning("stock is low", article=7)
        raise RuntimeError("no")

    first, last = run(broker, run_worker, failing)

    assert (first.state, last.state) == ("retrying", "dead")
    assert first.logs is not None and last.logs is not None
    assert "info shop: attempt with 0 before" in first.logs and "attempt with 1 before" in last.logs
    assert "attempt with 0" not in last.logs
    assert "stock is low" in last.logs and "article" in last.logs
    assert first.error is not None and len(first.error.fingerprint) == 16


def test_a_retry_that_begins_before_its_first_attempts_hooks_end_keeps_its_own_lines(
    yard_broker: BuildBroker, run_worker: Any
) -> None:
    broker, retried = yard_broker(small_yard(max_retries=1)), threading.Event()

    class Slow(Middleware):
        def after_process_message(self, broker: Any, message: Any, **ended: Any) -> None:
            if not message.options.get("attempts"):
                assert retried.wait(30)

    # Its after-hook runs when the message has moved, and before that of Status.
    broker.add_middleware(Slow(), after=Status)

    @dramatiq.actor(broker=broker, queue_name="work")
    def failing() -> None:
        [message] = [held for held in broker.in_flight.values() if held.runs_in == threading.get_ident()]
        logging.getLogger("shop").info("attempt with %s before", message.options.get("attempts", 0))
        if message.options.get("attempts"):
            retried.set()
        raise RuntimeError("no")

    rows = run(broker, run_worker, failing)

    by_state = {row.state: row.logs or "" for row in rows}
    assert "attempt with 0" in by_state["retrying"] and "attempt with 1" not in by_state["retrying"]
    assert "attempt with 1" in by_state["dead"] and "attempt with 0" not in by_state["dead"]


@pytest.mark.parametrize(("keep", "kept"), [(False, False), (True, True)])
def test_a_success_keeps_its_lines_only_where_its_actor_asks(
    broker: RedisBroker, run_worker: Any, keep: bool, kept: bool
) -> None:

    @dramatiq.actor(broker=broker, queue_name="work", keep_logs=keep)
    def talking() -> None:
        logging.getLogger("shop").info("done")

    [row] = run(broker, run_worker, talking)

    assert (row.logs is not None) == kept


def test_lines_are_bounded_and_hide_secrets_and_hidden_arguments(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(small_yard(max_retries=0))

    @dramatiq.actor(broker=broker, queue_name="work", redact=("card",))
    def talking(card: str) -> None:
        for number in range(2_000):
            logging.getLogger("shop").info("line %05d", number)
        logging.getLogger("shop").info("paid with %s, password=hunter2222", card)
        raise RuntimeError("no")

    [row] = run(broker, run_worker, talking, "4111-1111-1111-1111")

    assert row.logs is not None
    assert len(row.logs.encode()) <= LOGS_LIMIT_BYTES
    assert "line 01999" in row.logs and "line 00000" not in row.logs
    assert "4111" not in row.logs and "hunter2222" not in row.logs


def test_lines_of_a_job_that_a_later_middleware_skips_are_forgotten(broker: RedisBroker, run_worker: Any) -> None:
    skipped = threading.Event()
    held: list[Any] = []

    class Gate(Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            logging.getLogger("shop").warning("closed")
            raise SkipMessage

        def after_skip_message(self, broker: Any, message: Any) -> None:
            held.append((message, kept.of(message, None)))
            skipped.set()

    broker.add_middleware(Gate())
    actor = dramatiq.actor(lambda: None, actor_name="shut", broker=broker, queue_name="work")
    [kept] = [each._logs for each in broker.middleware if isinstance(each, Status)]
    with run_worker(broker=broker):
        actor.send()
        assert skipped.wait(30)
        [(message, lines)] = held
        wait_for(lambda: kept.of(message, None) is None)
    assert "closed" in lines
