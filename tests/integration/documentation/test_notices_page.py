"""The guide's notices: an event by three channels, one of them down, with a limit and a night for each person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Dependency
from switchyard.conf import declared_yard
from tests.conftest import RunWorker
from tests.integration.documentation.shown import shown_app
from tests.waiting import wait_for

HOUR = datetime.now(UTC).hour
NOON, MIDNIGHT = f"Etc/GMT{HOUR - 12:+}", f"Etc/GMT{(HOUR + 12) % 24 - 12:+}"
HOUR_MS = 3_600_000


class Channels(ModuleType):
    """Stand-in for the providers. A channel is down as often as it is told to be."""

    def __init__(self) -> None:
        super().__init__("apps.notices.channels")
        self.calls: list[tuple[str, int, str]] = []
        self.down = Counter[str]()
        self.send = {name: partial(self.call, name) for name in ("mail", "webhook", "push")}

    def call(self, name: str, person_id: int, event_id: int, *, key: str) -> None:
        self.calls.append((name, person_id, key))
        if self.down[name]:
            self.down[name] -= 1
            raise ConnectionError(f"{name} is down")


@pytest.fixture
def shown(yard_broker: Callable[..., RedisBroker], transactional_db: None) -> Iterator[Any]:
    """The guide's app on a yard that declares its dependency, and retries soon."""
    yard = replace(declared_yard(), dependencies=(Dependency("notices"),), retry_speed=1_000)
    broker = yard_broker(yard)
    with shown_app("notify-people", broker, channels=Channels()) as app:
        job = facilities(broker).records.read
        yield SimpleNamespace(broker=broker, job=job, **vars(app["actors"]) | vars(app["models"]))


def test_a_channel_that_is_down_repeats_itself_alone(shown: Any, run_worker: RunWorker) -> None:
    ada = shown.Person.objects.create(channels=["mail", "webhook", "push"], zone=NOON)
    shown.channels.down["push"] = 2

    with run_worker("default", "default-retry", broker=shown.broker):
        for _ in range(2):  # the second may be a redelivery
            shown.notify.send(ada.pk, 7)
        wait_for(lambda: len(shown.channels.calls) == 5)
        jobs = {key for *_, key in shown.channels.calls}
        wait_for(lambda: [shown.job(id_).state for id_ in jobs] == ["succeeded"] * 3)

    assert Counter(name for name, *_ in shown.channels.calls) == {"mail": 1, "webhook": 1, "push": 3}


def test_a_person_gets_twenty_an_hour_and_another_goes_on(shown: Any, run_worker: RunWorker) -> None:
    ada, ben = (shown.Person.objects.create(channels=["mail", "push"], zone=NOON) for _ in range(2))

    with run_worker("default", broker=shown.broker):
        for event in range(12):
            shown.notify.send(ada.pk, event)
        shown.notify.send(ben.pk, 1)
        stats = facilities(shown.broker).transport.stats
        wait_for(lambda: len(shown.channels.calls) == 22 and stats("default").live.scheduled == 4)

    assert Counter(person for _, person, _ in shown.channels.calls) == {ada.pk: 20, ben.pk: 2}


def test_a_night_holds_all_of_a_person_until_the_morning(shown: Any, run_worker: RunWorker) -> None:
    ada = shown.Person.objects.create(channels=["mail"], zone=MIDNIGHT)
    ben = shown.Person.objects.create(channels=["mail"], zone=NOON)

    with run_worker("default", broker=shown.broker):
        late = shown.deliver.send("mail", ada.pk, 6).message_id  # sent by day, and held up into the night
        shown.notify.send(ada.pk, 7)
        shown.notify.send(ben.pk, 7)
        stats = facilities(shown.broker).transport.stats
        wait_for(lambda: shown.channels.calls and stats("default").live.scheduled == 2)

    assert [person for _, person, _ in shown.channels.calls] == [ben.pk]
    early = shown.job(str(uuid5(NAMESPACE_URL, f"7/{ada.pk}/mail")))
    assert [(job.reason, job.attempts) for job in (early, shown.job(late))] == [("delay", 0), ("actor_paused", 0)]
    assert 5 * HOUR_MS < early.next_attempt_at - datetime.now(UTC).timestamp() * 1000 < 8 * HOUR_MS


@pytest.mark.parametrize(
    ("now", "quiet_h"),
    [("2026-06-01T05:00+02:00", 2), ("2026-06-01T07:00+02:00", 0), ("2026-06-01T21:59+02:00", 0),
     ("2026-06-01T22:00+02:00", 9), ("2026-10-24T23:00+02:00", 9), ("2026-03-28T23:00+01:00", 7)],
)  # fmt: skip
def test_the_morning_is_that_of_the_persons_clock(
    shown: Any, monkeypatch: pytest.MonkeyPatch, now: str, quiet_h: int
) -> None:
    monkeypatch.setattr("django.utils.timezone.now", lambda: datetime.fromisoformat(now))

    assert shown.Person(zone="Europe/Zurich").quiet_ms() == quiet_h * HOUR_MS
