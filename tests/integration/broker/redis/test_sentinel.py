"""The master that sentinels name: found for each connection, left when it is not a master any more."""

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha1
from math import inf

import pytest
import redis

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import Script
from switchyard.broker.worker.prefetch import LONGEST_BLOCK_S, Wakeup
from switchyard.conf import declared_yard
from switchyard.operations.findings.examine import run_checks
from switchyard.operations.findings.servers import GROUP, look_at_servers
from switchyard.workers.preflight import Watch
from tests.chaos.server import ServerUnderTest, server_binary
from tests.sentinels import NAME, Sentinel, Watched
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Watched(tmp_path_factory.mktemp("sentinels"), server_binary("redis-server")) as servers:
        yield servers


@pytest.fixture
def settled(watched: Watched) -> Watched:
    """The same, after what the test before did."""
    watched.wait_until_settled()
    return watched


@pytest.fixture
def calls(settled: Watched) -> Iterator[RedisCalls]:
    calls = RedisCalls(connect(settled.url))
    yield calls
    calls.close()


@pytest.mark.parametrize("within_s", [inf, pytest.param(1.5, marks=pytest.mark.long)])
def test_a_sentinel_that_is_away_hangs_or_is_wrong_costs_a_moment(settled, tmp_path, within_s):
    wrong = Sentinel(tmp_path / "wrong", server_binary("redis-server"), settled.replica.port)
    settled.sentinels[0].signal(signal.SIGSTOP)
    try:
        places = [1, settled.sentinels[0].port, wrong.port, settled.sentinels[1].port]
        url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in places)}/{NAME}"
        calls = RedisCalls(connect(url))
        started_s = time.monotonic()
        calls.command("SET", "a", "1")
        took_s = time.monotonic() - started_s
        calls.close()
    finally:
        settled.sentinels[0].signal(signal.SIGCONT)
        wrong.close()

    assert took_s < within_s


def test_sentinels_with_a_password_are_asked_with_it(settled, tmp_path):
    locked = Sentinel(
        tmp_path / "locked", server_binary("redis-server"), settled.master_port(), more="requirepass s3cret"
    )
    url = f"redis+sentinel://127.0.0.1:{locked.port}/{NAME}"
    try:
        with pytest.raises(redis.AuthenticationError, match="sentinel_password"):
            wait_for(lambda: connect(url, profile="quick").ping())
        assert connect(f"{url}?sentinel_password=s3cret", profile="quick").ping()
    finally:
        locked.close()


def test_an_unknown_master_and_absent_sentinels_are_said(settled):
    unknown = RedisCalls(connect(settled.url.replace("/yard/", "/yrad/")), budget_s=0.2)
    absent = RedisCalls(connect("redis+sentinel://127.0.0.1:1/yard"), budget_s=0.2)

    with pytest.raises(BrokerUnavailable, match="No such master"):
        unknown.command("PING")
    with pytest.raises(BrokerUnavailable, match="no sentinel names the master 'yard'") as refused:
        absent.command("PING")

    assert refused.value.outcome == "refused"


def test_threads_share_the_sentinels(settled, calls):
    threads = [threading.Thread(target=lambda: calls.command("INCR", "counted")) for _ in range(16)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert settled.master.admin.get("counted") == b"16"


def test_answers_that_are_to_come_are_not_mixed_up_when_the_master_is_replaced(calls):
    operation = Script("echo", text := "return ARGV[1]", sha1(text.encode(), usedforsecurity=False).hexdigest())
    numbers = [str(number) for number in range(6)]

    def batches() -> Iterator[tuple[list[str], list[str]]]:
        for number in numbers:
            if number == "3":  # the answer to 2 is to come
                sentinels = calls.client.connection_pool.connection_kwargs["sentinels"]
                sentinels.master = ("127.0.0.1", 1)
            yield [], [number]

    answers = [str(answer, "ascii") for answer in calls.stream(operation, batches())]  # type: ignore[arg-type]

    assert answers == numbers


def test_a_connection_to_a_demoted_master_is_dropped(tmp_path):
    with ServerUnderTest(tmp_path / "server", server_binary("redis-server")) as former:
        sentinel = Sentinel(tmp_path / "sentinel", server_binary("redis-server"), former.port)
        calls = RedisCalls(connect(f"redis+sentinel://127.0.0.1:{sentinel.port}/{NAME}"), budget_s=0.5)
        try:
            calls.command("SET", "a", "1")
            former.admin.execute_command("REPLICAOF", "127.0.0.1", "1")  # by hand: connections stay open
            answers = calls.pipeline([("SET", "a", "2"), ("GET", "a")], raise_errors=False)
            with pytest.raises(BrokerUnavailable, match="not a master now"):
                calls.command("GET", "a")
            former.admin.execute_command("REPLICAOF", "NO", "ONE")
            calls.command("SET", "a", "3")
        finally:
            calls.close()
            sentinel.close()

    assert isinstance(answers[0], BrokerUnavailable) and answers[0].code == "READONLY"


def test_calls_and_a_blocked_wait_go_on_at_the_new_master(settled, calls):
    former = settled.master_port()
    wakeup = Wakeup(calls, "bell")
    wakeup.request()
    calls.command("SET", "before", "1")

    settled.fail_over()
    started_s = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        while time.monotonic() < started_s + LONGEST_BLOCK_S:
            if wakeup.wait(0.1):
                wakeup.request()
    calls.command("SET", "after", "2")
    wakeup.request()
    calls.command("RPUSH", "bell", "1")
    answer = wait_for(lambda: wakeup.wait(0.1))
    wakeup.disconnect()

    assert settled.master_port() != former
    assert settled.master.admin.mget("before", "after") == [b"1", b"2"]
    assert answer[0]


@pytest.mark.long
def test_a_wait_on_a_hung_master_ends_when_another_call_found_the_new_one(settled, calls):
    hung = settled.master
    wakeup = Wakeup(calls, "bell")
    wakeup.request()
    calls.command("PING")
    hung.stop()
    try:
        wait_for(lambda: settled.master_port() != hung.port)
        calls.command("SET", "found", "1", budget_s=10)
        with pytest.raises(BrokerUnavailable, match="replaced"):
            wait_for(lambda: wakeup.wait(0.05))
    finally:
        hung.cont()


def test_an_emptied_new_master_is_told_as_what_it_is(settled, settings):
    settings.SWITCHYARD = replace(settings.SWITCHYARD, broker_url=settled.url)
    keys, queues = declared_yard().keys, [queue.name for queue in declared_yard().queues]
    watch = Watch(RedisCalls(connect(settled.url, profile="quick")), keys, queues, production=True)
    watch.generation.prepare()
    assert watch.look().findings == ()

    settled.fail_over()
    wait_for(lambda: settled.master.admin.info("replication")["role"] == "master")  # type: ignore[index]
    settled.master.admin.flushall()
    # Until the connection to the former master has ended, the watch may speak of that.
    wait_for(lambda: "emptied" in watch.look().pause, what="the watch says it")
    watch.close()
    told = {found.code for found in run_checks(GROUP, look_at_servers, 20.0) if found.severity == "error"}

    assert told == {"keyspace"}
