"""Contents of a job's record, and results that are too large for it; limits, cancellation and timing of jobs."""

from __future__ import annotations

import threading
import time
from typing import Any

import dramatiq
import pytest

from switchyard.broker.admin.scheduled import cancel
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.history_streams import LiveJob, live_step
from switchyard.broker.stores.limit_counts import RateWindows
from switchyard.broker.stores.result_stores import RECORD_LIMIT_BYTES as RESULT_LIMIT_BYTES
from switchyard.jobs.services import report_progress
from switchyard.middleware.errors import CancelInterrupt
from switchyard.middleware.metrics import Metrics
from tests.conftest import BuildBroker
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard
from tests.integration.broker.test_foreign_messages import put
from tests.waiting import wait_for


def test_a_record_tells_a_jobs_life(broker: RedisBroker, run_worker: Any) -> None:
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def add(a: int, b: int) -> dict[str, int]:
        report_progress(1, 2, "adding")
        return {"sum": a + b}

    sent = add.send_with_options(args=(1, 2), owner="user:1")
    queued = records.read(sent.message_id)
    records.follow(sent.message_id)
    with the_global_broker(broker), run_worker(broker=broker):
        wait_for(lambda: records.read(sent.message_id).ended)

    record = records.read(sent.message_id)
    assert (queued.state, queued.attempts, queued.owner) == ("queued", 0, "user:1")
    assert (record.state, record.attempts, record.result) == ("succeeded", 1, {"sum": 3})
    assert record.progress == {"done": 1, "total": 2, "note": "adding"}
    assert record.enqueued_at <= record.started_at <= record.finished_at
    events = records.calls.client.xrange(records.stream_key(sent.message_id, "work"))
    assert [fields[b"event"] for _, fields in events] == [b"state", b"progress", b"state", b"end"]


@pytest.mark.parametrize("owner", [10**30, {"a": 1}, [2]])
def test_an_owner_that_is_no_text_keeps_no_record_from_being_written(
    broker: RedisBroker, run_worker: Any, owner: object
) -> None:
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work")
    def quiet() -> None: ...

    job_id = put(broker, {"actor": "quiet", "sent_at": now_ms(), "options": {"owner": owner}})
    with run_worker(broker=broker):
        wait_for(lambda: records.read(job_id).ended)

    assert records.read(job_id).owner == str(owner)


def test_a_job_that_nobody_follows_keeps_no_events(broker: RedisBroker, run_worker: Any) -> None:
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work")
    def alone() -> None: ...

    job_id = alone.send().message_id
    with run_worker(broker=broker):
        wait_for(lambda: records.read(job_id).ended)

    assert not records.calls.client.exists(records.stream_key(job_id, "work"))
    assert records.follow("nobody") is None
    assert not records.calls.client.exists(records.keys.queue("work").followed)


def test_results_are_kept_only_for_actors_that_ask_and_nothing_for_untracked(
    broker: RedisBroker, run_worker: Any
) -> None:
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work")
    def quiet() -> int:
        return 42

    done = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work", track=False)
    def untracked() -> None:
        done.set()

    with run_worker(broker=broker):
        job_id, other = quiet.send().message_id, untracked.send().message_id
        wait_for(lambda: records.read(job_id).ended)
        assert done.wait(30)

    assert records.read(job_id).result is None
    assert records.read(other) is None


def test_a_delayed_job_is_scheduled_then_runs_when_due(broker: RedisBroker, run_worker: Any) -> None:
    records = facilities(broker).records
    started: list[float] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def later() -> None:
        started.append(time.time())

    sent_at = time.time()
    job_id = later.send_with_options(delay=300).message_id
    record = records.read(job_id)
    with run_worker(broker=broker):
        wait_for(lambda: records.read(job_id).ended)

    assert (record.state, record.reason) == ("scheduled", "delay")
    assert record.next_attempt_at is not None
    assert 299 <= record.next_attempt_at - sent_at * 1000 < 30_000
    assert started[0] >= sent_at + 0.299


def test_late_news_never_overwrites_newer(valkey: Any, broker: RedisBroker) -> None:
    records = facilities(broker).records
    broker.families["work"].enqueue([Entry("j", b'{"actor":"a","sent_at":1}')])

    def write(state: str, attempt: int) -> list[str]:
        return records.write([live_step("work", LiveJob("j", state, attempt=attempt))])

    assert write("retrying", 1) == ["written"]
    assert write("running", 1) == ["late"]
    assert records.read("j").state == "retrying"


def test_a_start_that_is_written_after_its_job_ended_leaves_no_record(yard_broker: BuildBroker) -> None:
    records = facilities(yard_broker(small_yard())).records

    assert records.write([live_step("work", LiveJob("j", "running", attempt=1))]) == ["late"]
    assert records.read("j") is None


def test_a_rate_limit_is_exact_in_every_window_and_spends_no_retry(
    yard_broker: BuildBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = yard_broker(small_yard(max_retries=0))
    records = facilities(broker).records
    reserve = RateWindows.reserve
    starts: list[tuple[int, int]] = []

    def reserve_and_note(windows: RateWindows, *arguments: Any, **options: Any) -> int:
        earliest = records.calls.client.time()
        delay_ms = reserve(windows, *arguments, **options)
        latest = records.calls.client.time()
        if delay_ms == 0:
            starts.append(tuple(seconds * 1000 + micros // 1000 for seconds, micros in (earliest, latest)))
        return delay_ms

    @dramatiq.actor(broker=broker, queue_name="work", rate_limit="5/s")
    def limited() -> None:
        pass

    monkeypatch.setattr(RateWindows, "reserve", reserve_and_note)
    with run_worker(broker=broker, threads=8):
        ids = [limited.send().message_id for _ in range(14)]
        wait_for(lambda: all(records.read(job_id).state == "succeeded" for job_id in ids))

    earliest, latest = sorted(start[0] for start in starts), sorted(start[1] for start in starts)
    assert len(starts) == 14
    # The server decided each start between these two readings of its clock.
    assert min(latest[place + 5] - earliest[place] for place in range(9)) >= 1000
    assert all(records.read(job_id).attempts == 1 for job_id in ids)
    assert facilities(broker).transport.stats("work").dead == 0


def test_a_job_whose_rate_limit_cannot_be_read_is_retried_instead_of_starting(
    yard_broker: BuildBroker, run_worker: Any
) -> None:
    broker = yard_broker(small_yard(max_retries=0))
    records = facilities(broker).records
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", rate_limit="5/s")
    def limited() -> None:
        runs.append(1)

    records.calls.command("SET", broker.keys.window(limited.actor_name), "of another type")
    with run_worker(broker=broker, threads=1):
        job_id = limited.send().message_id
        record = wait_for(lambda: (found := records.read(job_id)) and found.ended and found)

    assert (record.state, record.error["type"]) == ("dead", "MoveFailed")
    assert not runs


def test_starts_that_a_clock_ahead_has_written_hold_no_rate_limit_up(
    yard_broker: BuildBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that wait for their turn keep it, however many they are."""
    found = facilities(yard_broker(small_yard()))
    key, calls = found.records.keys.window("a"), found.records.calls
    ahead = (int(calls.command("TIME")[0]) + 86_400) * 1000

    def reserve(member: str) -> int:
        return round(found.windows.reserve("a", member, limit=2, window_ms=600_000) / 600_000)

    before = [reserve(f"job {n}") for n in range(7)]
    calls.command("ZADD", key, *(word for n in range(9) for word in (ahead + n, f"ahead {n}")))
    after = [reserve(member) for member in ("job 6", "ahead 3", "new", "job 5")]

    assert (before, after) == ([0, 0, 1, 1, 2, 2, 3], [3, 3, 4, 2])
    assert "9 starts lie too far in the future" in caplog.text


def test_news_of_the_sender_that_comes_late_does_not_hide_that_a_job_was_deferred(
    broker: RedisBroker, run_worker: Any
) -> None:
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work", rate_limit="1/h")
    def hourly() -> None: ...

    with run_worker(broker=broker, threads=1):
        hourly.send()
        sent = hourly.send()
        wait_for(lambda: _with_reason(records, sent.message_id, "rate_limit"))
        broker.emit_after("enqueue", sent, None)

        assert _with_reason(records, sent.message_id, "rate_limit").state == "scheduled"


def test_a_running_job_stops_between_two_steps(broker: RedisBroker, run_worker: Any) -> None:
    records = facilities(broker).records
    started, steps = threading.Event(), []

    @dramatiq.actor(broker=broker, queue_name="work")
    def long() -> None:
        for number in range(10_000):
            steps.append(number)
            started.set()
            report_progress(number, 10_000)
            time.sleep(0.005)

    with the_global_broker(broker), run_worker(broker=broker):
        job_id = long.send().message_id
        assert started.wait(30)
        answer = cancel(facilities(broker), job_id)
        wait_for(lambda: records.read(job_id).ended)

    assert answer == "asked"
    assert records.read(job_id).state == "cancelled"
    assert len(steps) < 10_000
    assert facilities(broker).transport.stats("work").dead == 0


@pytest.mark.parametrize("within_s", [60.0, pytest.param(1.0, marks=pytest.mark.long)])
@pytest.mark.parametrize(("how", "state"), [("stops", "cancelled"), ("fails", "cancelled"), ("returns", "succeeded")])
def test_a_running_job_that_does_not_look_is_interrupted_within_a_second(
    broker: RedisBroker, run_worker: Any, how: str, state: str, within_s: float
) -> None:
    records = facilities(broker).records
    started, interrupted = threading.Event(), threading.Event()

    name = f"interrupted_and_{how}_within_{within_s:.0f}"

    @dramatiq.actor(broker=broker, queue_name="work", actor_name=name)
    def long() -> None:
        started.set()
        try:
            while True:
                time.sleep(0.001)
        except CancelInterrupt as interrupt:
            interrupted.set()
            if how == "fails":
                raise RuntimeError("of being interrupted") from interrupt
            if how == "stops":
                raise

    with run_worker(broker=broker, poll_ms=1_000):
        job_id = long.send().message_id
        assert started.wait(30)
        assert cancel(facilities(broker), job_id) == "asked"
        assert interrupted.wait(within_s)
        wait_for(lambda: records.read(job_id).ended)
        wait_for(lambda: facilities(broker).transport.stats("work").live.running == 0)

    assert records.read(job_id).state == state
    [metrics] = (entry for entry in broker.middleware if isinstance(entry, Metrics))
    assert metrics.messages.labels("work", name, state)._value.get() == 1
    stats = facilities(broker).transport.stats("work")
    assert (stats.dead, stats.retry.scheduled, stats.retry.waiting) == (0, 0, 0)


def _with_reason(records: Any, job_id: str, reason: str) -> Any:
    record = records.read(job_id)
    return record if record.reason == reason else None


WHY = "result of 50000002 bytes is not stored, at most 1048576 are; store what is large, and return its name"


def test_a_result_over_the_limit_is_not_stored(
    broker: RedisBroker, run_worker: Any, caplog: pytest.LogCaptureFixture
) -> None:
    records = facilities(broker).records

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def returns(count: int) -> str:
        return "x" * count

    with run_worker(broker=broker):
        fits, large = returns.send(RESULT_LIMIT_BYTES - 2), returns.send(50_000_000)
        kept = wait_for(lambda: (found := records.read(fits.message_id)) and found.ended and found)
        dropped = wait_for(lambda: (found := records.read(large.message_id)) and found.ended and found)

    assert (kept.state, len(kept.result), kept.error) == ("succeeded", RESULT_LIMIT_BYTES - 2, None)
    assert (dropped.state, dropped.result) == ("succeeded", None)
    assert dropped.error["type"] == "ResultNotStored"
    assert WHY in dropped.error["message"]
    assert "result is too large, not kept" in caplog.text
    assert broker.client.hstrlen(broker.keys.queue("work").ended_bucket(1), large.message_id) < 10_000
