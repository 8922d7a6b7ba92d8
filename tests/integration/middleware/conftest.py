"""The broker of a small yard with its jobs, one that is away for a while, and the same examples in every run."""

from collections.abc import Callable
from functools import partial
from typing import Any

import dramatiq
import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from tests import same_examples as same_examples
from tests.factories.yards import small_yard
from tests.waiting import wait_for


class Work:
    """A broker with the queue ``work``, its workers, and what became of its jobs."""

    def __init__(self, broker: RedisBroker, run_worker: Any) -> None:
        self.broker, self.run = broker, partial(run_worker, broker=broker)
        self.actor = partial(dramatiq.actor, broker=broker, queue_name="work")
        self.records, self.transport = facilities(broker).records, facilities(broker).transport

    @property
    def stats(self) -> Any:
        return self.transport.stats("work")

    def read(self, job: Any) -> Any:
        """Return the record of a message or of an id."""
        return self.records.read(getattr(job, "message_id", job))

    def until(self, job: Any, state: str = "", reason: str | None = None) -> Any:
        """Wait until a job has ended, or has a state or a reason; return its record."""

        def found() -> Any:
            record = self.read(job)
            is_there = record and (record.ended or state or reason) and state in ("", record.state)
            is_whole = is_there and (state != "retrying" or record.error)  # which comes later
            return record if is_whole and reason in (None, record.reason) else None

        return wait_for(found, what=f"{state or reason or 'the end'} of {job}")

    def letter(self, job: Any) -> Any:
        """Wait until a job is a dead letter; return it."""
        return wait_for(lambda: self.transport.find_dead_letter("work", getattr(job, "message_id", job)))

    def idle(self) -> None:
        """Wait until no job of the queue runs."""
        wait_for(lambda: self.stats.live.running == 0)

    def end_of(self, job: Any, state: str = "", **options: Any) -> Any:
        """Run a worker until a job has ended, with a state if one is named; return its record."""
        with self.run(**options):
            return self.until(job, state)

    def letter_of(self, job: Any) -> Any:
        """Run a worker until a job is a dead letter; return it."""
        with self.run():
            return self.letter(job)

    def runs_until_success(self, **options: Any) -> int:
        """Run a job that fails once until it has succeeded, and return how often it ran."""
        runs: list[int] = []

        @self.actor(**options)
        def flaky() -> None:
            runs.append(1)
            if len(runs) == 1:
                raise RuntimeError("once")

        self.end_of(flaky.send(), "succeeded")
        return len(runs)


def away(patch: Any, owner: Any, name: str, times: int = 1, when: Any = lambda *given: True) -> list[str]:
    """Have a method find no broker the first times that it is called, and have waits be short; return those times."""
    real, refused = getattr(owner, name), list[str]()

    def call(*given: Any, **how: Any) -> Any:
        if len(refused) < times and when(*given):
            refused.append(name)
            raise BrokerUnavailable(name, "connection refused")
        return real(*given, **how)

    patch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.01)
    patch.setattr(owner, name, call)
    return refused


@pytest.fixture
def works(yard_broker, run_worker) -> Callable[..., Work]:
    """Make a small yard: ``works(max_retries=0, extra=[…])``."""

    def make(extra: Any = (), **options: Any) -> Work:
        return Work(yard_broker(small_yard(**options), **({"extra": extra} if extra else {})), run_worker)

    return make


@pytest.fixture
def work(works) -> Work:
    return works()


@pytest.fixture
def broker(work) -> RedisBroker:
    return work.broker
