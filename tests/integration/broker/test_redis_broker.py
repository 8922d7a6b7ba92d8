"""The broker underneath: what a dead worker held comes back, what cannot be reached is said; reports of pools."""

import threading
import time
from math import inf

import dramatiq
import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue.leases import RENEW_S, SWEEP_S, TICK_S
from switchyard.broker.queue.operations import LEASE_MS
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import SILENT_KEPT_MS, PoolReport, PoolReports, SilentSupervisor
from switchyard.wiring import build_yard
from tests.factories.yards import small_yard
from tests.waiting import wait_for


def test_a_closed_broker_keeps_no_connection(valkey, valkey_url, run_worker):
    client = connect(f"{valkey_url}?client_name=closing")
    broker = build_yard(small_yard(), client, Keys(prefix="closing"))

    def connections() -> list[str]:
        return [found["addr"] for found in valkey.client_list() if found["name"] == "closing"]

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None: ...

    with run_worker(broker=broker):
        job_id = job.send().message_id
        wait_for(lambda: (record := facilities(broker).records.read(job_id)) and record.ended)
        assert connections()

    broker.close()

    wait_for(lambda: not connections())


def test_what_vanished_with_its_host_starts_again_within_20_seconds():
    assert LEASE_MS / 1000 + SWEEP_S + TICK_S <= 20
    assert RENEW_S * 3 <= LEASE_MS / 1000, "two renewals may fail"


@pytest.mark.parametrize("within_s", [inf, pytest.param(2.5, marks=pytest.mark.long)])
def test_a_server_that_is_away_is_named_within_the_profiles_time(within_s):
    broker = build_yard(small_yard(), connect("redis://127.0.0.1:1/0"), Keys("nowhere"))

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None: ...

    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match="SWITCHYARD_BROKER_URL") as refused:
        job.send()

    assert refused.value.outcome == "refused", "it was never sent"
    assert time.monotonic() - started < within_s


def test_an_id_that_runs_is_known_to_the_other_tasks_of_its_worker_too(broker, run_worker):
    runs: list[int] = []
    entered, go_on = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def report(number: int) -> None:
        runs.append(number)
        entered.set()
        go_on.wait(60)

    @dramatiq.actor(broker=broker, queue_name="work")
    def send_again() -> None:
        broker.enqueue(report.message(2).copy(message_id="report-42"))

    transport = facilities(broker).transport
    with run_worker(broker=broker, threads=2):
        broker.enqueue(report.message(1).copy(message_id="report-42"))
        assert entered.wait(30)
        sent = send_again.send()
        wait_for(lambda: (found := facilities(broker).records.read(sent.message_id)) and found.state == "succeeded")
        # The record of an end is written before its acknowledgement.
        wait_for(lambda: (live := transport.stats("work").live) and (live.waiting, live.running) == (0, 1))
        go_on.set()
        wait_for(lambda: not transport.stats("work").live.running)

    assert runs == [1]


def test_what_continues_itself_runs_again_under_its_id(broker, run_worker):
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def page(number: int) -> None:
        runs.append(number)
        if number < 3:
            broker.enqueue(page.message(number + 1).copy(message_id="walk"))

    with run_worker(broker=broker):
        broker.enqueue(page.message(1).copy(message_id="walk"))
        wait_for(lambda: runs == [1, 2, 3])
        wait_for(lambda: not facilities(broker).transport.stats("work").live.running)


def test_a_pool_report_lapses_with_its_supervisor(valkey, yard_broker):
    pools = facilities(yard_broker(small_yard())).pools
    report = PoolReport("work", "host", 1, "threads", slots=4, busy=1, started_at=1, beat_at=2, state="up")

    pools.write(report)
    assert pools.read_all() == [report]
    for key in valkey.scan_iter("*work:host:1"):
        valkey.pexpire(key, 1)

    wait_for(lambda: pools.read_all() == [])


def test_a_pools_report_that_cannot_be_read_hides_no_other(broker):
    pools, keys = facilities(broker).pools, broker.keys
    fine = PoolReport("work", "a", 1, "threads", slots=4, busy=0, started_at=1, beat_at=2, state="up")
    pools.write(fine)
    for rubbish in (b"{", b'{"pool": "of a release to come", "more": 1}'):
        broker.client.set(keys.pool_report(str(rubbish)), rubbish)
        broker.client.sadd(keys.pool_reports(), str(rubbish))

    assert pools.read_all() == [fine]


def test_an_id_that_is_no_text_stops_no_consumer(broker, run_worker):
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        done.append(1)

    broker.client.rpush(broker.families["work"].keys.waiting("live")[1], b"\xff\xfe")
    with run_worker(broker=broker) as worker:
        job.send()
        wait_for(lambda: done)
        wait_for(lambda: facilities(broker).transport.stats("work").quarantined == 1)
        consumers = [thread.is_alive() for thread in worker.consumers.values()]

    assert all(consumers)
    assert facilities(broker).transport.unreadable("work").items[0].raw == b"\xff\xfe"


def test_a_dead_letter_that_cannot_be_requeued_names_the_broker_as_unavailable():
    broker = build_yard(small_yard(), connect("redis://127.0.0.1:1/0"), Keys("nowhere"))

    with pytest.raises(BrokerUnavailable) as refused:
        facilities(broker).transport.requeue("work", {"any": 0}, nonce="n")

    assert refused.value.outcome == "refused", "nothing was moved, so a caller may release its claim"


NOW = 1_800_000_000_000


def test_a_supervisor_that_starts_forgets_those_that_are_silent_for_long(valkey):
    keys = Keys()
    old, lately = "urgent:a:1", "urgent:b:2"
    beats = {old: NOW - SILENT_KEPT_MS - 1, lately: NOW - SILENT_KEPT_MS, "written by hand": 7}
    valkey.hset(keys.pool_beats(), mapping=beats)  # type: ignore[arg-type]
    found = PoolReports(RedisCalls(valkey), keys).read_beats(NOW)

    assert valkey.hkeys(keys.pool_beats()) == [lately.encode()]
    assert found == [SilentSupervisor("urgent", "b", 2, NOW - SILENT_KEPT_MS)]
