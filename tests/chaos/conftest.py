"""Servers to harm, brokers on them, workers that do not wait long, and the ledger of what they did."""

import contextlib
import uuid
from collections.abc import Callable, Iterator

import pytest

from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.wiring import build_yard
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.ledger import Ledger
from tests.chaos.load import YARD, declare_job
from tests.chaos.pools import Pools
from tests.chaos.server import SERVER_NAMES, ServerUnderTest, server_binary
from tests.environment import SERVER

PoolsOn = Callable[..., Pools]
ON_BOTH = ("test_pools_outlive_kills_of_their_server_and_lose_nothing",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever asks for a server on Valkey and on Redis, and name it in the test's id.

    What a kill does is tested on both in every run, the rest on Redis with ``--long``: the conformance suite holds the
    broker's behaviour on either.
    """
    if "server_name" in metafunc.fixturenames:
        marks = () if metafunc.function.__name__ in ON_BOTH else pytest.mark.long
        metafunc.parametrize(
            "server_name", [SERVER_NAMES[0], *(pytest.param(n, marks=marks) for n in SERVER_NAMES[1:])]
        )


@pytest.fixture
def server(server_name, tmp_path) -> Iterator[ServerUnderTest]:
    with ServerUnderTest(tmp_path / "server", server_binary(server_name)) as server:
        yield server


@pytest.fixture
def ledger(tmp_path) -> Iterator[Ledger]:
    """An empty ledger; its account is printed at the end."""
    with contextlib.closing(Ledger(tmp_path / "ledger")) as ledger:
        yield ledger
        print(ledger.account())


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy(SERVER.port) as proxy:
        yield proxy


@pytest.fixture
def broker_on(ledger) -> Iterator[Callable[[str], RedisBroker]]:
    """Build brokers that share their keys, each with the job of :mod:`tests.chaos.load`: ``broker_on(url)``."""
    keys = Keys(f"chaos-{uuid.uuid4().hex[:8]}")
    with contextlib.ExitStack() as opened:

        def build(url: str) -> RedisBroker:
            broker = opened.enter_context(contextlib.closing(build_yard(YARD, connect(url), keys)))
            declare_job(broker, ledger)
            return broker

        yield build


@pytest.fixture
def pools_on(ledger, tmp_path) -> Iterator[PoolsOn]:
    """Start real pools: ``pools_on("threads", url).start("runpool", "work")``; the server is to be empty."""
    with contextlib.ExitStack() as opened:
        yield lambda yard, url: opened.enter_context(Pools(tmp_path, ledger, url, yard))


@pytest.fixture
def yard() -> str:
    """The yard of a test that is parametrized with none."""
    return "threads"


@pytest.fixture
def pools(pools_on, valkey_url, yard) -> Pools:
    return pools_on(yard, valkey_url)


@pytest.fixture
def deaths(moment, tmp_path, monkeypatch) -> Callable[[], int]:
    """Have children of ``dying_settings`` die at a moment; the number of those that did."""
    monkeypatch.setenv("CHAOS_MOMENT", moment)
    monkeypatch.setenv("CHAOS_MOMENT_MARK", str(tmp_path / "died"))
    return lambda: len(list(tmp_path.glob("died*")))


@pytest.fixture
def soon_again(monkeypatch) -> None:
    """Let workers of this process come back from a fault in a tenth of a second, where a deployment takes seconds."""
    for pause in (
        "dramatiq.worker.CONSUMER_RESTART_DELAY_SECS",
        "dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS",
        "switchyard.middleware.wait_for_broker.PAUSE_S",
    ):
        monkeypatch.setattr(pause, 0.1)
