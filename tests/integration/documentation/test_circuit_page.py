"""The actors of the guide wait for what they call, and for as long as a server asks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import dramatiq
import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from tests.conftest import RunWorker
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard
from tests.integration.documentation.shown import run_block
from tests.waiting import wait_for


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
def shown(monkeypatch: pytest.MonkeyPatch, yard_broker: Callable[..., RedisBroker]) -> Iterator[Any]:
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


def test_what_waits_calls_no_more_and_others_go_on(shown: Any, run_worker: RunWorker) -> None:
    records = facilities(shown.broker).records
    charges = [shown.charge.send(number).message_id for number in range(40)]
    asked, other = shown.sync.send("eu", 7).message_id, shown.sync.send("us", 8).message_id

    with run_worker(broker=shown.broker, threads=1):
        wait_for(lambda: records.states([other]) == ["succeeded"])
        wait_for(lambda: [job.reason for job in map(records.read, charges) if job].count("circuit_open") >= 30)
        wait_for(lambda: records.states([asked]) == ["succeeded"])

    assert shown.servers.called.count("https://payments.example/charges") <= 15
    assert (job := records.read(asked)) is not None
    assert (shown.servers.called.count("eu"), job.attempts) == (2, 1)
    assert isinstance(dramatiq.get_broker(), RedisBroker)
