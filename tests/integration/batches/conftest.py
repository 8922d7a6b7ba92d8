"""A broker of a small yard with two queues, whose failed jobs are retried once, and actors that note what they do."""

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest

from switchyard.batches.counting import count_batches
from switchyard.batches.services import Batch, NewBatch, batch, current_batch
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Pool, Queue, RetryPolicy, Yard
from tests.factories.brokers import the_global_broker
from tests.waiting import wait_for

POLICY = RetryPolicy(max_retries=1, base_ms=5, cap_ms=20)


def two_queues() -> Yard:
    return Yard(
        queues=(Queue("work", 1_000, 5_000, 10_000, retry=POLICY), Queue("other", 1_000, 5_000, 10_000, retry=POLICY)),
        pools=(
            Pool("work", "threads", ("work", "other"), processes=1, slots=4),
            Pool("retries", "threads", (), processes=1, slots=4, shared_retries=True),
        ),
    )


@pytest.fixture
def broker(yard_broker) -> Iterator[RedisBroker]:
    made = yard_broker(two_queues())
    with the_global_broker(made):
        yield made


class Actors:
    """Actors of a broker; the numbers that ``work`` refuses, what ran, and the callbacks that did."""

    def __init__(self, queue: str = "work", another: str = "other", **options: Any) -> None:
        self.refused: set[int] = set()
        self.ran: list[int] = []
        self.called: list[str] = []
        made = self

        @dramatiq.actor(queue_name=queue, **options)
        def work(number: int, adds: int = 0) -> None:
            if number in made.refused:
                raise RuntimeError("no paper")
            batch = current_batch()
            for more in range(adds):
                batch.add(made.other.message(1_000 * number + more))
            made.ran.append(number)

        @dramatiq.actor(queue_name=another, **options)
        def other(number: int) -> None:
            made.work.fn(number)

        @dramatiq.actor(queue_name=another)
        def called(name: str) -> None:
            made.called.append(name)

        self.work, self.other, self.call = work, other, called

    def imports(self, *numbers: int, **options: Any) -> NewBatch:
        """Send a batch with callbacks, whose members work on these numbers."""
        with batch("import", **self.callbacks()) as jobs:
            jobs.add(*(self.work.message(number, **options) for number in numbers))
        return jobs

    def callbacks(self) -> dict[str, Any]:
        return {name: self.call.message(name) for name in ("on_success", "on_failure", "on_complete")}


@pytest.fixture
def actors(broker) -> Actors:
    return Actors()


def until(count: Callable[[], int], found: Callable[[], Any]) -> None:
    """Count until something holds."""

    def counted() -> Any:
        count()
        return found()

    wait_for(counted)


def figures(of: Batch) -> tuple[str, int, int, int, int]:
    found = of.progress()
    return found.state, found.open, found.done, found.failed, found.cancelled


@pytest.fixture
def run_until(run_worker, broker, actors) -> Callable[..., None]:
    """Run a worker, and count, until something holds, or so many callbacks were called."""

    def run(found: Any, *queues: str) -> None:
        with run_worker(*queues, broker=broker):
            until(count_batches, found if callable(found) else lambda: len(actors.called) == found)

    return run


@pytest.fixture
def count(broker) -> Callable[[], int]:
    """Do what the scheduler does once a second."""
    return count_batches
