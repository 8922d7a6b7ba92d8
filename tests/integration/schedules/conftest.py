import datetime
from collections.abc import Callable, Iterator

import dramatiq
import pytest
from periodiq import cron

from switchyard.audit.services import Who
from switchyard.broker.interface import facilities as facilities_of
from switchyard.schedules.models import StoredSchedule
from switchyard.schedules.rows import save
from switchyard.schedules.runner import Scheduler
from tests.factories.brokers import the_global_broker

START = datetime.datetime(2026, 11, 20, 8, 30, tzinfo=datetime.UTC)


class Clock:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime.datetime:
        return self.now

    def forward(self, **delta: float) -> datetime.datetime:
        self.now += datetime.timedelta(**delta)
        return self.now


class Yard:
    """A broker of its own with periodic actors, and schedulers on it."""

    def __init__(self, broker: dramatiq.Broker, clock: Clock) -> None:
        self.broker, self.clock = broker, clock
        self.facilities = facilities_of(broker)

    def declare(
        self, name: str = "tick", spec: str = "* * * * *", function: Callable = lambda: None, **options
    ) -> None:
        dramatiq.actor(
            function, broker=self.broker, actor_name=name, queue_name="default", periodic=cron(spec), **options
        )

    def actor(self, name: str = "work", function: Callable = lambda customer=0: None, **options) -> None:
        """Declare an actor that people may schedule."""
        options = {"schedulable": True, "queue_name": "default"} | options
        dramatiq.actor(function, broker=self.broker, actor_name=name, **options)

    def store(self, name: str = "tick", **fields) -> StoredSchedule:
        """Store a schedule of every minute."""
        row = StoredSchedule(**{"name": name, "actor": "work", "cron": "* * * * *"} | fields)
        save(row, who=Who("ada", "page"))
        return row

    def scheduler(self, **options) -> Scheduler:
        return Scheduler(now=self.clock, **options)

    def steps(self, count: int, scheduler: Scheduler | None = None) -> None:
        """Let a scheduler, a new one if none is given, step once in each of so many minutes."""
        scheduler = scheduler or self.scheduler()
        for _ in range(count):
            scheduler.step()
            self.clock.forward(minutes=1)

    def lapse(self) -> None:
        """Let the lease run out, as 15 s without a renewal do."""
        self.facilities.records.calls.client.delete(self.facilities.records.keys.lock("scheduler"))

    def sent(self) -> int:
        """Jobs that were enqueued."""
        return self.facilities.transport.stats("default").live.waiting


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def yard(db, yard_broker, clock) -> Iterator[Yard]:
    broker = yard_broker()
    with the_global_broker(broker):
        yield Yard(broker, clock)
