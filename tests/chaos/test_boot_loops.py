"""F11: children that die as soon as they start. Their supervisor stays, starts them later and later, and says so."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from math import inf

import psutil
import pytest

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.pool_reports import PoolReports
from tests.chaos.conftest import PoolsOn
from tests.chaos.ledger import Ledger
from tests.chaos.load import enqueue, let_pass
from tests.chaos.pools import Pools
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("valkey")


# With 0.1 s doubled each time seven starts fall into the first 10 s, and ten into the first minute. A loop without a
# pause takes most of a core.
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("watched_s", "most", "most_cpu"), [(10, 7, inf), pytest.param(60, 10, 0.05, marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    ("yard", "settings"),
    [
        pytest.param("one byte", "settings", id="killed"),
        pytest.param("greenlet", "broken_settings", marks=pytest.mark.long, id="bad import"),
    ],
)
def test_a_crash_loop_costs_next_to_nothing_and_the_probe_says_so(
    pools_on: PoolsOn,
    valkey_url: str,
    ledger: Ledger,
    yard: str,
    settings: str,
    watched_s: float,
    most: int,
    most_cpu: float,
) -> None:
    pools = pools_on(yard, valkey_url)
    enqueue(pools.broker, ledger, "waits")
    pool = pools.start("runpool", "work", settings=f"tests.chaos.yard.{settings}", ready=False)
    pool.wait_for_log("it is replaced")  # as long as a start may take
    process = psutil.Process(pool.pid)
    began_s, before = time.monotonic(), process.cpu_times()

    let_pass(watched_s)
    after, took_s = process.cpu_times(), time.monotonic() - began_s
    starts = pool.log().count("it is replaced")
    cpu = ((after.user + after.system) - (before.user + before.system)) / took_s

    children = (after.children_user + after.children_system - before.children_user - before.children_system) / took_s
    print(
        f"{starts} starts in {watched_s:g} s, {cpu:.1%} of a core for the supervisor, {children:.1%} for its children"
    )
    assert starts <= most
    assert cpu < most_cpu
    assert pool.process.poll() is None
    assert health(pools) == (503, "no child works\n")
    assert not ledger.jobs("started")

    pool.process.terminate()
    assert pool.process.wait(60) == 0
    whole = pools_on("threads", valkey_url)
    whole.start("runpool", "work")
    wait_for(lambda: ledger.jobs("completed") == ["waits"])


def health(pools: Pools) -> tuple[int, str]:
    """Return what the pool's probe is answered."""
    [report] = PoolReports(RedisCalls(pools.broker.client), Keys()).read_all()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{report.metrics_port}/health", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
