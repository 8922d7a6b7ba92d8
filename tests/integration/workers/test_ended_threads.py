"""A worker whose thread was ended by an exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Middleware

from switchyard.broker.redis_broker import RedisBroker
from switchyard.workers.child.main import all_work
from tests.factories.yards import small_yard
from tests.waiting import wait_for


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_child_notices_a_thread_that_ended(yard_broker: Callable[..., RedisBroker], run_worker: Any) -> None:
    class ExitCause(Middleware):
        def after_process_message(self, broker: Any, message: Any, **how: Any) -> None:
            raise SystemExit

    broker = yard_broker(small_yard(max_retries=0), extra=[ExitCause()])

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        raise RuntimeError("no")

    with run_worker(broker=broker, threads=2) as worker:
        before = all_work(worker)
        job.send()
        wait_for(lambda: not all_work(worker))

    assert before
