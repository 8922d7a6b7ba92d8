"""Messages of another release or library, put into the queue by hand: run, scheduled or quarantined, none lost."""

import json
import random
import threading
import time
import uuid
from typing import Any

import dramatiq
import pytest

from switchyard.broker.errors import ActRefused, NotFound
from switchyard.broker.interface import facilities
from switchyard.broker.queue.administration import DepthLimits
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis_broker import RedisBroker
from tests.conftest import BuildBroker
from tests.factories.yards import small_yard
from tests.waiting import wait_for

YEAR_MS = 366 * 24 * 3_600_000
SEED = 75


def put(broker: RedisBroker, body: Any, *, lane: str = "work", delay_ms: int = 0) -> str:
    """Put a body into a lane, past the encoder and the validation."""
    family, which = broker.lane(lane)
    id_ = str(uuid.uuid4())
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    family.enqueue([Entry(id_, raw)], lane=which, delay_ms=delay_ms)
    return id_


def job_of(broker: RedisBroker, options: dict[str, Any], **fields: Any) -> str:
    """Put a message of the actor ``note`` into the queue."""
    return put(broker, {"actor": "note", "sent_at": now_ms(), "options": options, **fields})


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.fixture
def runs() -> dict[str, int]:
    """Attempts by message id, as the actor ``note`` saw them."""
    return {}


@pytest.fixture
def broker(yard_broker: BuildBroker, runs: dict[str, int]) -> RedisBroker:
    broker = yard_broker(small_yard(max_retries=0))
    counting = threading.Lock()

    @dramatiq.actor(broker=broker, queue_name="work")
    def note(*args: Any, **kwargs: Any) -> None:
        message = dramatiq.middleware.CurrentMessage.get_current_message()
        assert message is not None
        with counting:
            runs[message.message_id] = runs.get(message.message_id, 0) + 1

    return broker


def quarantined(broker: RedisBroker) -> dict[str, str]:
    """Return the reason of each quarantined message, by its id."""
    return {item.id: item.error for item in facilities(broker).transport.unreadable("work", limit=1_000).items}


@pytest.mark.parametrize("lane", ["work", "work-retry"])
def test_an_eta_becomes_the_due_time_and_counts_no_attempt(broker, run_worker, runs, lane):
    family, which = broker.lane(lane)
    due_at = now_ms() + 5_000
    body = {"actor": "note", "sent_at": now_ms(), "options": {"eta": due_at}}

    with run_worker(broker=broker) as worker:
        id_ = put(broker, body, lane=lane)
        wait_for(lambda: family.calls.command("ZSCORE", family.keys.due(which), id_))
        record = wait_for(lambda: facilities(broker).records.read(id_))
        in_memory = [thread.delay_queue.qsize() for thread in worker.consumers.values()]
        early = dict(runs)
        wait_for(lambda: runs)
        started_at = now_ms()
        wait_for(lambda: state_of(broker, id_) == "succeeded")

    assert not any(in_memory)
    assert (record.state, record.reason, record.next_attempt_at) == ("scheduled", "eta", due_at)
    assert early == {}
    assert due_at - 5 <= started_at < due_at + 20_000
    assert (runs, facilities(broker).records.read(id_).attempts) == ({id_: 1}, 1)


STOCK = {"retries": 2, "traceback": "…", "requeue_timestamp": 1_700_000_000_000, "redis_message_id": "x"}


@pytest.mark.parametrize(("eta", "more"), [*((eta, {}) for eta in (None, 0, 1.5, -1, 0.0)), (-1, STOCK)])
def test_an_eta_in_the_past_runs_at_once_also_with_what_stock_dramatiq_writes(broker, run_worker, runs, eta, more):
    with run_worker(broker=broker):
        id_ = job_of(broker, more | {"eta": now_ms() - 1 if eta == -1 else eta})
        wait_for(lambda: runs)

    assert runs == {id_: 1}


def test_an_eta_with_an_option_that_enqueue_refuses_blocks_nothing(broker, run_worker, runs, caplog):
    with run_worker(broker=broker, threads=1):
        refused = [job_of(broker, {"eta": now_ms() - 1, "max_doubt": 5_000}) for _ in range(20)]
        healthy = broker.get_actor("note").send().message_id
        wait_for(lambda: runs)
        reasons = wait_for(lambda: len(found := quarantined(broker)) == len(refused) and found)

    assert runs == {healthy: 1}
    assert "Restarting consumer" not in caplog.text
    assert set(reasons) == set(refused)
    assert "message option max_doubt is 5000, and this release knows no such option" in reasons[refused[0]]
    record = wait_for(lambda: facilities(broker).records.read(refused[0]))
    assert (record.state, record.reason) == ("dead", "quarantined")


UNUSABLE: list[tuple[str, Any]] = [
    ("max_retries", -1),
    ("time_limit", "5s"),
    ("time_limit", 0),
    ("time_limit", [1]),
    ("store_results", 1),
    ("alert", {}),
    ("priority", "high"),
    ("unique_key", {"a": 1}),
    ("on_failure", ["tell"]),
    ("delay", "later"),
    ("permanent", "ValueError"),
    ("backoff", 5),
    ("rate_limit", "1/d"),
]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_retries": "5"}, "max_retries is '5'; write a number of retries"),
        ({"track": "no"}, "track is 'no'; write True or False"),
        ({"redact": "all"}, "redact is 'all'; only actors can have it"),
        ({"eta": "tomorrow"}, "option eta is 'tomorrow', not a time in milliseconds"),
        ({"eta": True}, "option eta is True, not a time"),
        ({"eta": 10**30}, "option eta is 1000"),
        ({"attempts": 1.5}, "option attempts is 1.5, a float, not an int"),
        ({"deferred_by": ["x"]}, "option deferred_by is ['x'], not a text"),
        ({"pipe_target": "next"}, "pipe_target is 'next'; write a pipeline"),
        *(({name: value}, f"{name} is {value!r}") for name, value in UNUSABLE),
    ],
    ids=str,
)
def test_what_is_not_understood_is_quarantined_with_option_and_value(broker, run_worker, runs, options, reason):
    with run_worker(broker=broker):
        id_ = job_of(broker, options)
        found = wait_for(lambda: quarantined(broker))

    assert reason in found[id_]
    assert runs == {}


def test_a_message_of_a_newer_release_is_whole_and_requeued_after_the_upgrade(broker, run_worker, runs):
    transport = facilities(broker).transport
    with run_worker(broker=broker):
        newer = job_of(broker, {"max_doubt": 5_000}, args=["x" * 200_000])
        wait_for(lambda: quarantined(broker))
        with pytest.raises(ActRefused, match="message option max_doubt is 5000"):
            transport.requeue_quarantined("work", newer)
        broker.actor_options.add("max_doubt")  # what the newer release's middleware does
        transport.requeue_quarantined("work", newer)
        wait_for(lambda: state_of(broker, newer) == "succeeded")

    assert runs == {newer: 1}
    assert quarantined(broker) == {}
    with pytest.raises(NotFound):
        transport.requeue_quarantined("work", newer)


@pytest.mark.parametrize("id_", ["", "two words\x1b", "a:events", "a-job:progress"])
def test_a_message_without_a_usable_id_is_whole_and_requeued_under_a_new_one(broker, run_worker, runs, id_):
    with run_worker(broker=broker):
        broker.families["work"].enqueue([Entry(id_, json.dumps({"actor": "note", "sent_at": now_ms()}).encode())])
        found = wait_for(lambda: quarantined(broker))
        [(new, error)] = found.items()
        facilities(broker).transport.requeue_quarantined("work", new)
        wait_for(lambda: runs)

    assert error == f"its id is not an id: {id_!r}"
    assert runs == {new: 1}
    assert quarantined(broker) == {}
    assert broker.client.hlen(broker.families["work"].keys.bodies) == 0


@pytest.mark.parametrize("lane", ["work", "work-retry"])
def test_a_full_queue_takes_no_message_of_the_quarantine_but_its_retries(broker, run_worker, lane):
    transport, later = facilities(broker).transport, {"of_a_newer_release": 1}
    with run_worker(broker=broker):
        id_ = put(broker, {"actor": "note", "sent_at": now_ms(), "options": later}, lane=lane)
        wait_for(lambda: quarantined(broker))
    broker.actor_options.add("of_a_newer_release")
    broker.limits = DepthLimits({"work": 2})
    put(broker, {"actor": "note", "sent_at": now_ms()}, delay_ms=60_000)
    put(broker, {"actor": "note", "sent_at": now_ms()})

    if lane == "work":
        with pytest.raises(ActRefused, match="stays in the quarantine: queue 'work' holds 2 messages of at most 2"):
            transport.requeue_quarantined("work", id_)
        assert id_ in quarantined(broker)
        broker.limits = DepthLimits({"work": 3})
    transport.requeue_quarantined("work", id_)

    assert quarantined(broker) == {}
    assert transport.find_message("work", id_) is not None


def test_a_quarantined_message_that_is_no_message_is_only_discarded(broker, run_worker):
    transport, keys = facilities(broker).transport, broker.families["work"].keys
    with run_worker(broker=broker):
        id_ = put(broker, b"\xff\xfe")
        wait_for(lambda: quarantined(broker))

    with pytest.raises(ActRefused, match="stays in the quarantine"):
        transport.requeue_quarantined("work", id_)
    transport.discard_quarantined("work", id_)

    assert quarantined(broker) == {}
    assert broker.client.exists(keys.quarantine, keys.quarantined_bodies) == 0


@pytest.mark.parametrize("body", ["unreadable", "scheduled", "failing", "unknown to the worker"])
def test_an_id_that_ended_and_is_put_there_again_is_in_one_place(broker, run_worker, runs, body):
    bodies: dict[str, Any] = {
        "unreadable": {"rubbish": 1},
        "scheduled": {"actor": "note", "sent_at": now_ms(), "options": {"eta": now_ms() + YEAR_MS // 2}},
        "failing": {"actor": "fails", "sent_at": now_ms()},
        "unknown to the worker": {"actor": "newer", "sent_at": now_ms()},
    }

    @dramatiq.actor(broker=broker, queue_name="work")
    def fails() -> None:
        raise ValueError

    transport, keys = facilities(broker).transport, broker.families["work"].keys
    with run_worker(broker=broker):
        id_ = put(broker, {"actor": "note", "sent_at": now_ms()})
        wait_for(lambda: runs.get(id_) and transport.stats("work").live.running == 0)
        # Past the script that takes each id once.
        broker.client.hset(keys.bodies, id_, json.dumps(bodies[body]).encode())
        broker.client.rpush(keys.waiting("live")[1], id_)
        broker.client.rpush(keys.wakeup("live"), 1)

        def lies_in_one_place() -> bool:
            found = transport.stats("work")
            return found.quarantined + found.dead + found.live.scheduled == 1 and found.live.running == 0

        wait_for(lies_in_one_place)

    assert runs == {id_: 1}
    assert transport.stats("work").live.waiting == 0
    assert all(not broker.client.hexists(name, id_) for name in broker.client.scan_iter(f"{keys.base}hold:*"))


def test_a_message_for_an_actor_of_a_newer_release_is_parked_with_its_options(broker, run_worker):
    family = broker.families["work"]
    with run_worker(broker=broker):
        id_ = put(broker, {"actor": "newer", "sent_at": now_ms(), "options": {"max_doubt": 5_000}})
        wait_for(lambda: facilities(broker).transport.stats("work").parked == 1)

    assert json.loads(family.calls.command("HGET", family.keys.bodies, id_))["options"]["max_doubt"] == 5_000


def test_of_200_random_shapes_none_is_lost_and_none_holds_up_a_healthy_message(broker, run_worker, runs, caplog):
    generator = random.Random(SEED)
    family = broker.families["work"]
    shapes = [shape(generator) for _ in range(200)]

    with run_worker(broker=broker, threads=2) as worker:
        ids = set()
        for number, body in enumerate(shapes):
            ids.add(put(broker, body, lane=generator.choice(("work", "work-retry")), delay_ms=number % 3))
            if number % 10 == 0:
                healthy = broker.get_actor("note").send().message_id
                wait_for(lambda id_=healthy: id_ in runs)
        # A message of one lane may be taken while the other is looked at: only the whole account says that all ended.
        wait_for(lambda: set.union(*places_of(broker, ids, runs)) == ids, what="an end of each message")
        wait_for(lambda: not family.held(owner_of(broker, "live")) and not family.held(owner_of(broker, "retry")))
        alive = all(thread.is_alive() for thread in worker.consumers.values())
        in_memory = [thread.delay_queue.qsize() for thread in worker.consumers.values()]

    places = places_of(broker, ids, runs)
    assert set.union(*places) == ids
    assert sum(map(len, places)) == len(ids)
    assert set(runs.values()) == {1}
    assert all(map(len, places[:3])), "every kind of end was met"
    assert alive
    assert not any(in_memory)
    assert "Restarting consumer" not in caplog.text


def places_of(broker: RedisBroker, ids: set[str], runs: dict[str, int]) -> list[set[str]]:
    """Return which messages ran, were quarantined, wait for their time, and are dead."""
    family = broker.families["work"]
    dead = {letter.id for letter in facilities(broker).transport.dead_letters("work", limit=1_000).items}
    due = {
        str(id_, "ascii")
        for lane in ("live", "retry")
        for id_ in family.calls.command("ZRANGE", family.keys.due(lane), 0, -1)
    }
    return [set(runs) & ids, set(quarantined(broker)), due & ids, dead - set(runs)]  # a callback is no shape


def state_of(broker: RedisBroker, job_id: str) -> str:
    """Return the state in a job's record, empty while there is none."""
    record = facilities(broker).records.read(job_id)
    return "" if record is None else record.state


def owner_of(broker: RedisBroker, lane: str) -> str:
    return next(owner for owner in broker.families["work"].owners() if owner.endswith(lane))


def shape(generator: random.Random) -> Any:
    """Return a body of another release, another library, or of nobody."""
    if generator.random() < 0.15:
        return generator.choice([b"", b"{", b"null", b"[1]", b'"text"', b"\xff\xfe", generator.randbytes(50)])
    values: list[Any] = [None, True, 0, -1, 1.5, 10**30, "", "x", "5", [], {}, [[]], {"a": {"b": 1}}]
    etas = [None, 0, now_ms() - 5_000, now_ms(), now_ms() + YEAR_MS, float(now_ms() + 60_000), *values]
    names = [
        *("max_age", "min_backoff", "max_backoff", "jitter", "throws", "broker_priority", "max_retries", "time_limit")
    ]
    names += ["retries", "traceback", "requeue_timestamp", "track", "store_results", "alert", "priority", "on_success"]
    names += ["pipe_ignore", "group_completion_uuid", "attempts", "due_at", "parked_ms", "deferred_by", "owner", "ünï"]
    options = {name: generator.choice(values) for name in generator.sample(names, generator.choice([0, 0, 1, 2, 4]))}
    if generator.random() < 0.6:
        options["eta"] = generator.choice(etas)
    fields = {"actor": "note", "sent_at": now_ms(), "options": options}
    if generator.random() < 0.2:
        fields[generator.choice(["actor", "sent_at", "options", "args", "kwargs", "new"])] = generator.choice(values)
    return fields
