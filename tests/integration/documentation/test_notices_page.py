"""Guides with servers of others: notices by three channels, an import as a batch, circuits of what they call."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import dramatiq
import pytest

from switchyard.batches.services import Batch
from switchyard.broker.interface import Facilities, facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Dependency
from switchyard.conf import declared_yard
from switchyard.middleware.errors import PermanentFailure
from tests.conftest import RunWorker
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard
from tests.integration.documentation.shown import run_block, shown_app, stand_in, wait_counting
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


class Import:
    """The guide's model: what was done."""

    broken: set[int] = set()
    done: list[tuple[Any, ...]] = []

    @classmethod
    def save_row(cls, import_id: int, row: int) -> Any:
        if row in cls.broken:
            raise PermanentFailure("no such row")
        cls.done.append(("row", row))
        return SimpleNamespace(pictures=[f"https://example.org/{row}"] if row % 2 else [])

    @classmethod
    def save_picture(cls, import_id: int, address: str) -> None:
        cls.done.append(("picture", address))

    @classmethod
    def publish(cls, import_id: int) -> None:
        cls.done.append(("published", import_id))

    @classmethod
    def warn(cls, import_id: int, failed: int) -> None:
        cls.done.append(("warned", import_id, failed))


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, facilities: Facilities) -> dict[str, Any]:
    """Names that the guide's code defines."""
    stand_in(monkeypatch, "apps.catalog.models", Import=Import)
    monkeypatch.setattr(Import, "broken", set())
    monkeypatch.setattr(Import, "done", [])
    return run_block("count-jobs-as-a-batch")


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_import_is_published_once_all_rows_and_pictures_are_there(
    page: dict[str, Any], run_worker: RunWorker
) -> None:
    made = Batch(page["import_all"](7, 6))
    with run_worker("default"):
        wait_counting(lambda: ("published", 7) in Import.done)

    assert Import.done[-1] == ("published", 7)
    assert [kind for kind, *_ in Import.done].count("picture") == 3
    assert (made.progress().state, made.progress().done, made.progress().name) == ("succeeded", 9, "import 7")


@pytest.mark.usefixtures("transactional_db")
def test_the_guides_import_warns_of_a_row_that_failed(page: dict[str, Any], run_worker: RunWorker) -> None:
    Import.broken = {1}
    made = Batch(page["import_all"](8, 2))
    with run_worker("default"):
        wait_counting(lambda: ("warned", 8, 1) in Import.done and made.progress().state == "complete")

    assert ("published", 8) not in Import.done


class Servers(ModuleType):
    """Stand-in for ``requests``: a provider that does not answer, and a host that asks to wait once."""

    def __init__(self) -> None:
        super().__init__("requests")
        self.called: list[str] = []
        self.waits = {"eu"}

    def post(self, url: str, **options: Any) -> Any:
        self.called.append(url)
        raise ConnectionError("no answer")

    def put(self, url: str, **options: Any) -> Any:
        host = url.split("/")[2]
        self.called.append(host)
        status = 429 if host in self.waits else 200
        self.waits.discard(host)
        return SimpleNamespace(status_code=status, headers={"Retry-After": "1"}, raise_for_status=lambda: None)


@pytest.fixture
def circuits(monkeypatch: pytest.MonkeyPatch, yard_broker: Callable[..., RedisBroker]) -> Iterator[Any]:
    """The guide's dependencies and actors, on a yard of their own."""
    servers = Servers()
    monkeypatch.setitem(sys.modules, "requests", servers)
    dependencies = run_block("break-a-circuit")["DEPENDENCIES"]
    yard = small_yard()
    billing = replace(yard.queues[0], name="billing")
    pools = (replace(yard.pools[0], queues=("billing",)), yard.pools[1])
    broker = yard_broker(replace(yard, queues=(billing,), pools=pools, dependencies=dependencies))
    with the_global_broker(broker):
        names = run_block("break-a-circuit", 1)
        yield SimpleNamespace(broker=broker, servers=servers, charge=names["charge"], sync=names["sync"])


def test_what_waits_calls_no_more_and_others_go_on(circuits: Any, run_worker: RunWorker) -> None:
    records = facilities(circuits.broker).records
    charges = [circuits.charge.send(number).message_id for number in range(40)]
    asked, other = circuits.sync.send("eu", 7).message_id, circuits.sync.send("us", 8).message_id

    with run_worker(broker=circuits.broker, threads=1):
        wait_for(lambda: records.states([other]) == ["succeeded"])
        wait_for(lambda: [job.reason for job in map(records.read, charges) if job].count("circuit_open") >= 30)
        wait_for(lambda: records.states([asked]) == ["succeeded"])

    assert circuits.servers.called.count("https://payments.example/charges") <= 15
    assert (job := records.read(asked)) is not None
    assert (circuits.servers.called.count("eu"), job.attempts) == (2, 1)
    assert isinstance(dramatiq.get_broker(), RedisBroker)
