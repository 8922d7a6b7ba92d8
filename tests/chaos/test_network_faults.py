"""A network that resets, swallows and drops, and bytes in a queue that are no message, lose no accepted work."""

import pickle
import random
import time
import uuid
from math import inf
from typing import Any

import psutil
import pytest
from dramatiq import Worker

from switchyard.broker.errors import BrokerRefused
from switchyard.broker.interface import facilities
from switchyard.broker.queue.operations import Entry
from tests.chaos.ledger import Ledger
from tests.chaos.load import QUEUE, enqueue, let_pass, load, wait_until_drained
from tests.environment import SERVER
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("soon_again", "valkey")
long = pytest.mark.long
KEPT_BYTES = 4_096
WHOLE = b'{"actor": "chaos_job", "sent_at": 1, '
BY_HAND = [
    *(b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe\x00", b"[" * 5_000),
    *(b'{"actor": "chaos_job"}', b'{"actor": 1, "sent_at": 1}', b'{"actor": "chaos_job", "sent_at": "now"}'),
    *(WHOLE + rest for rest in (b'"args": {}}', b'"kwargs": []}', b'"options": 7}', b'"args": [NaN]}')),
    WHOLE + b'"options": {"attempts": "many"}}',
]


# A loop without a pause makes hundreds of connections a second, and takes all of a core.
@pytest.mark.parametrize(
    ("storm_s", "most_per_s", "most_percent"), [(2, 100, 95), pytest.param(60, 20, 50, marks=long)]
)
def test_a_storm_of_resets_loses_nothing_and_leaks_nothing(
    proxy, broker_on, run_worker, ledger, monkeypatch, storm_s, most_per_s, most_percent
):
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 3.0)  # as in a deployment
    broker = broker_on(proxy.url)
    pause = random.Random(23)

    with run_worker(broker=broker), load(broker, ledger) as producers:
        producers.wait_for_accepted(60)
        process = psutil.Process()
        open_files, threads, connections = process.num_fds(), process.num_threads(), proxy.accepted_count
        process.cpu_percent()
        began_s = time.monotonic()
        while time.monotonic() < began_s + storm_s:
            proxy.reset()
            let_pass(pause.uniform(0.05, 0.2))
        cpu_percent = process.cpu_percent()
        connects_per_s = (proxy.accepted_count - connections) / (time.monotonic() - began_s)
        producers.wait_for_accepted(60)
        wait_for(lambda: process.num_threads() - threads <= 2, what="no thread more than two is left")
        wait_for(lambda: process.num_fds() - open_files <= 10, what="no file more than ten is left")
        producers.finish(0)

    print(f"{connects_per_s:.0f} connects a second, {cpu_percent:.0f} % of a core, the proxy's share included")
    ledger.each_once()
    assert connects_per_s <= most_per_s
    assert cpu_percent < most_percent


@pytest.mark.parametrize("verb", ["drop_reply", "cut_mid_frame"])
def test_answers_that_a_worker_never_gets_lose_nothing(proxy, broker_on, run_worker, ledger, verb):
    broker, worker_broker = broker_on(SERVER.url), broker_on(proxy.url)

    with run_worker(broker=worker_broker), load(broker, ledger) as producers:
        for met_count in range(20):
            producers.wait_for_accepted(10)
            getattr(proxy, verb)(1)
            wait_for(lambda met_count=met_count: proxy.faults_met_count > met_count)
        producers.finish(0)

    ledger.none_lost()


@pytest.mark.parametrize("dark_s", [1, pytest.param(20, marks=long)])
def test_a_worker_goes_on_without_restart_after_a_blackhole(proxy, broker_on, run_worker, ledger, dark_s):
    broker, worker_broker = broker_on(SERVER.url), broker_on(proxy.url)

    with run_worker(broker=worker_broker) as worker:
        do_jobs(broker, ledger, "before")
        proxy.blackhole()
        wait_for(lambda: proxy.swallowed_bytes > 0)
        for number in range(20):
            enqueue(broker, ledger, f"dark-{number}")
        let_pass(dark_s)
        completed_in_the_dark = [job for job in ledger.jobs("completed") if job.startswith("dark")]
        proxy.pass_()
        healed_s = time.monotonic()
        wait_until_drained(broker)
        back_s = time.monotonic() - healed_s
        everyone_lives = all_alive(worker)

    print(f"drained {back_s:.2f} s after the heal")
    assert completed_in_the_dark == []
    ledger.none_lost()
    assert everyone_lives


@pytest.mark.parametrize("within_s", [inf, pytest.param(15, marks=long)])
def test_a_worker_notices_that_its_peer_has_vanished(proxy, broker_on, run_worker, ledger, within_s):
    broker, worker_broker = broker_on(SERVER.url), broker_on(proxy.url)

    with run_worker(broker=worker_broker) as worker:
        do_jobs(broker, ledger, "before")
        proxy.half_open()
        vanished_s = time.monotonic()
        enqueue(broker, ledger, "after")
        wait_for(lambda: "after" in ledger.jobs("completed"))
        noticed_s = time.monotonic() - vanished_s
        everyone_lives = all_alive(worker)
        wait_until_drained(broker)

    print(f"noticed within {noticed_s:.1f} s")
    ledger.none_lost()
    assert noticed_s <= within_s
    assert everyone_lives


def test_a_slow_network_costs_time_and_nothing_else(proxy, broker_on, run_worker, ledger):
    broker = broker_on(proxy.url)
    proxy.delay(10, jitter_ms=10)
    proxy.rate(64_000)

    with run_worker(broker=broker):
        do_jobs(broker, ledger, "slow")

    ledger.each_once()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=long)])
def test_an_enqueue_whose_answer_is_lost_is_there_exactly_once(proxy, broker_on, run_worker, ledger, count):
    broker, worker_broker = broker_on(proxy.url), broker_on(SERVER.url)
    assert enqueue(broker, ledger, "connected")

    for number in range(count - 1):
        job = f"drop-{number}"
        if number % 20 == 0:
            proxy.drop_reply(of=b'["%s"' % job.encode())  # the message itself, not what is noted about it
        assert enqueue(broker, ledger, job)
    keys = worker_broker.families[QUEUE].keys
    there = [worker_broker.client.hlen(keys.bodies), worker_broker.client.llen(keys.waiting("live")[1])]
    with run_worker(broker=worker_broker):
        wait_until_drained(worker_broker, 300)

    found = ledger.each_once()
    assert proxy.faults_met_count == -(-(count - 1) // 20)
    assert there == [count, count], "one body and one place for each id"
    assert len(found.accepted) == len(found.completed) == count


def do_jobs(broker: Any, ledger: Ledger, name: str, count: int = 10) -> None:
    for number in range(count):
        enqueue(broker, ledger, f"{name}-{number}")
    wait_until_drained(broker)


def all_alive(worker: Worker) -> bool:
    return all(thread.is_alive() for thread in (*worker.workers, *worker.consumers.values()))


def put(broker: Any, raw: bytes) -> None:
    """Put bytes that are no message into the queue, past the broker's own encoder."""
    broker.families[QUEUE].enqueue([Entry(uuid.uuid4().hex, raw)])


class Canary(str):
    """Path whose unpickling creates its file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self), "w")


def test_rubbish_is_set_aside_and_the_rest_is_done(broker_on, run_worker, ledger):
    broker = broker_on(SERVER.url)
    generator = random.Random(29)
    rubbish = [*BY_HAND, *(generator.randbytes(generator.randrange(1, 200)) for _ in range(40))]

    with run_worker(broker=broker) as worker, load(broker, ledger) as producers:
        producers.wait_for_accepted(2)
        before = wait_for(lambda: all((found := consumers_of(worker)).values()) and found)
        for raw in rubbish:
            producers.wait_for_accepted(2)
            put(broker, raw)
        producers.wait_for_accepted(20)
        producers.stop()
        wait_for(lambda: facilities(broker).transport.stats(QUEUE).quarantined == len(rubbish))
        wait_until_drained(broker)
        after = consumers_of(worker)

    ledger.each_once()
    kept = facilities(broker).transport.unreadable(QUEUE, limit=100).items
    assert sorted((item.size_bytes, item.raw) for item in kept) == sorted(
        (len(raw), raw[:KEPT_BYTES]) for raw in rubbish
    )
    assert after == before, "no consumer was started anew"


def test_rubbish_of_a_gone_release_does_not_hold_up_the_next_job(broker_on, run_worker, ledger, valkey):
    broker = broker_on(SERVER.url)
    for number in range(500):
        put(broker, b"\x80\x04rubbish %d" % number)
    enqueue(broker, ledger, "good")

    with run_worker(broker=broker):
        wait_for(lambda: ledger.jobs("completed") == ["good"])

    assert facilities(broker).transport.stats(QUEUE).quarantined == 500


def test_a_pickle_is_never_opened(broker_on, run_worker, tmp_path):
    broker, canary = broker_on(SERVER.url), tmp_path / "canary"
    put(broker, pickle.dumps(Canary(str(canary))))

    with run_worker(broker=broker):
        wait_for(lambda: facilities(broker).transport.stats(QUEUE).quarantined == 1)

    assert not canary.exists()


def test_a_key_of_a_wrong_type_is_named_and_harms_no_consumer(broker_on, run_worker, ledger, valkey):
    broker = broker_on(SERVER.url)
    waiting = broker.families[QUEUE].keys.waiting("live")[1]

    with run_worker(broker=broker) as worker:
        do_jobs(broker, ledger, "before")
        valkey.set(waiting, "not a list")
        with pytest.raises(BrokerRefused, match="WRONGTYPE"):
            broker.get_actor("chaos_job").send("never")
        valkey.delete(waiting)
        do_jobs(broker, ledger, "after")
        alive = all_alive(worker)

    assert alive
    ledger.each_once()


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("repeated", [200, pytest.param(100_000, marks=long)])
def test_an_id_that_is_pushed_again_by_hand_is_run_once_by_its_worker(broker_on, run_worker, ledger, valkey, repeated):
    broker = broker_on(SERVER.url)
    waiting = broker.families[QUEUE].keys.waiting("live")[1]

    with run_worker(broker=broker):
        for number in range(repeated):
            job = f"twice-{number}."
            enqueue(broker, ledger, job)
            valkey.rpush(waiting, job, job)
        broker.families[QUEUE].notify("live")
        wait_until_drained(broker, 600)
        for number in range(0, repeated, 10):
            valkey.rpush(waiting, f"twice-{number}.")
        broker.families[QUEUE].notify("live")
        wait_until_drained(broker, 600)

    assert len(ledger.each_once().completed) == repeated


def consumers_of(worker: Worker) -> dict[str, Any]:
    """Return what a worker fetches with; a consumer that is started anew is another."""
    return {name: thread.consumer for name, thread in worker.consumers.items()}
