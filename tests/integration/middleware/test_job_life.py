"""Records, results and log lines of jobs; their limits, cancellation and timing; proxies that hooks read and write."""

import gc
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
import structlog
from dramatiq import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware, SkipMessage

from switchyard.broker import consumer
from switchyard.broker.admin.scheduled import cancel
from switchyard.broker.clock import now_ms
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.interface import facilities
from switchyard.broker.queue.operations import Entry
from switchyard.broker.stores.history_streams import LOGS_LIMIT_BYTES, EndedJob, LiveJob, decode_rows, live_step
from switchyard.broker.stores.limit_counts import RateWindows
from switchyard.broker.stores.result_stores import RECORD_LIMIT_BYTES as RESULT_LIMIT_BYTES
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import report_progress, submit
from switchyard.middleware.errors import CancelInterrupt
from switchyard.middleware.metrics import Metrics
from switchyard.middleware.status import Status
from tests.factories.brokers import the_global_broker
from tests.integration.broker.test_foreign_messages import put
from tests.integration.middleware.conftest import Work
from tests.waiting import wait_for


def test_a_record_tells_a_jobs_life(work):
    records = work.records

    @work.actor(store_results=True)
    def add(a: int, b: int) -> dict[str, int]:
        report_progress(1, 2, "adding")
        return {"sum": a + b}

    sent = add.send_with_options(args=(1, 2), owner="user:1")
    queued = work.read(sent)
    records.follow(sent.message_id)
    with the_global_broker(work.broker):
        record = work.end_of(sent)

    assert (queued.state, queued.attempts, queued.owner) == ("queued", 0, "user:1")
    assert (record.state, record.attempts, record.result) == ("succeeded", 1, {"sum": 3})
    assert record.progress == {"done": 1, "total": 2, "note": "adding"}
    assert record.enqueued_at <= record.started_at <= record.finished_at
    events = records.calls.client.xrange(records.stream_key(sent.message_id, "work"))
    assert [fields[b"event"] for _, fields in events] == [b"state", b"progress", b"state", b"end"]


@pytest.mark.parametrize("owner", [10**30, {"a": 1}, [2]])
def test_an_owner_that_is_no_text_keeps_no_record_from_being_written(work, owner):
    work.actor(lambda: None, actor_name="quiet")

    job_id = put(work.broker, {"actor": "quiet", "sent_at": now_ms(), "options": {"owner": owner}})

    assert work.end_of(job_id).owner == str(owner)


def test_a_job_that_nobody_follows_keeps_no_events(work):
    records = work.records
    sent = work.actor(lambda: None, actor_name="alone").send()

    work.end_of(sent)

    assert not records.calls.client.exists(records.stream_key(sent.message_id, "work"))
    assert records.follow("nobody") is None
    assert not records.calls.client.exists(records.keys.queue("work").followed)


def test_a_delayed_job_is_scheduled_then_runs_when_due(work):
    started: list[float] = []
    later = work.actor(lambda: started.append(time.time()), actor_name="later")

    sent_at = time.time()
    sent = later.send_with_options(delay=300)
    record = work.read(sent)
    work.end_of(sent)

    assert (record.state, record.reason) == ("scheduled", "delay")
    assert 299 <= record.next_attempt_at - sent_at * 1000 < 30_000
    assert started[0] >= sent_at + 0.299


def test_late_news_never_overwrites_newer(work):
    work.broker.families["work"].enqueue([Entry("j", b'{"actor":"a","sent_at":1}')])

    def write(state: str, attempt: int) -> list[str]:
        return work.records.write([live_step("work", LiveJob("j", state, attempt=attempt))])

    assert write("retrying", 1) == ["written"]
    assert write("running", 1) == ["late"]
    assert work.read("j").state == "retrying"


def test_a_rate_limit_is_exact_in_every_window_and_spends_no_retry(works, monkeypatch):
    work = works(max_retries=0)
    server, reserve = work.records.calls.client, RateWindows.reserve
    starts: list[tuple[int, int]] = []

    def reserve_and_note(windows: RateWindows, *arguments: Any, **options: Any) -> int:
        earliest = server.time()
        delay_ms = reserve(windows, *arguments, **options)
        latest = server.time()
        if delay_ms == 0:
            starts.append(tuple(seconds * 1000 + micros // 1000 for seconds, micros in (earliest, latest)))
        return delay_ms

    limited = work.actor(lambda: None, actor_name="limited", rate_limit="5/s")
    monkeypatch.setattr(RateWindows, "reserve", reserve_and_note)
    with work.run(threads=8):
        sent = [limited.send() for _ in range(14)]
        records = [work.until(each, "succeeded") for each in sent]

    earliest, latest = sorted(start[0] for start in starts), sorted(start[1] for start in starts)
    assert len(starts) == 14
    # The server decided each start between these two readings of its clock.
    assert min(latest[place + 5] - earliest[place] for place in range(9)) >= 1000
    assert all(record.attempts == 1 for record in records)
    assert work.stats.dead == 0


def test_a_job_whose_rate_limit_cannot_be_read_is_retried_instead_of_starting(works):
    work, runs = works(max_retries=0), list[int]()
    limited = work.actor(lambda: runs.append(1), actor_name="limited", rate_limit="5/s")

    work.records.calls.command("SET", work.broker.keys.window(limited.actor_name), "of another type")
    record = work.end_of(limited.send(), threads=1)

    assert (record.state, record.error["type"]) == ("dead", "MoveFailed")
    assert not runs


def test_starts_that_a_clock_ahead_has_written_hold_no_rate_limit_up(broker, caplog):
    """Those that wait for their turn keep it, however many they are."""
    found = facilities(broker)
    key, calls = found.records.keys.window("a"), found.records.calls
    ahead = (int(calls.command("TIME")[0]) + 86_400) * 1000

    def reserve(member: str) -> int:
        return round(found.windows.reserve("a", member, limit=2, window_ms=600_000) / 600_000)

    before = [reserve(f"job {n}") for n in range(7)]
    calls.command("ZADD", key, *(word for n in range(9) for word in (ahead + n, f"ahead {n}")))
    after = [reserve(member) for member in ("job 6", "ahead 3", "new", "job 5")]

    assert (before, after) == ([0, 0, 1, 1, 2, 2, 3], [3, 3, 4, 2])
    assert "9 starts lie too far in the future" in caplog.text


def test_news_of_the_sender_that_comes_late_does_not_hide_that_a_job_was_deferred(work):
    hourly = work.actor(lambda: None, actor_name="hourly", rate_limit="1/h")

    with work.run(threads=1):
        hourly.send()
        sent = hourly.send()
        work.until(sent, reason="rate_limit")
        work.broker.emit_after("enqueue", sent, None)

        assert (work.read(sent).state, work.read(sent).reason) == ("scheduled", "rate_limit")


@pytest.mark.parametrize("within_s", [60.0, pytest.param(1.0, marks=pytest.mark.long)])
@pytest.mark.parametrize(("how", "state"), [("stops", "cancelled"), ("fails", "cancelled"), ("returns", "succeeded")])
def test_a_running_job_that_does_not_look_is_interrupted_within_a_second(work, how, state, within_s):
    started, interrupted = threading.Event(), threading.Event()
    name = f"interrupted_and_{how}_within_{within_s:.0f}"

    @work.actor(actor_name=name)
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

    with work.run(poll_ms=1_000):
        sent = long.send()
        assert started.wait(30)
        assert cancel(facilities(work.broker), sent.message_id) == "asked"
        assert interrupted.wait(within_s)
        record = work.until(sent)
        work.idle()

    assert record.state == state
    [metrics] = (entry for entry in work.broker.middleware if isinstance(entry, Metrics))
    assert metrics.messages.labels("work", name, state)._value.get() == 1
    stats = work.stats
    assert (stats.dead, stats.retry.scheduled, stats.retry.waiting) == (0, 0, 0)


WHY = "result of 50000002 bytes is not stored, at most 1048576 are; store what is large, and return its name"


def test_a_result_over_the_limit_is_not_stored(work, caplog):
    @work.actor(store_results=True)
    def returns(count: int) -> str:
        return "x" * count

    with work.run():
        fits, large = returns.send(RESULT_LIMIT_BYTES - 2), returns.send(50_000_000)
        kept, dropped = work.until(fits), work.until(large)

    assert (kept.state, len(kept.result), kept.error) == ("succeeded", RESULT_LIMIT_BYTES - 2, None)
    assert (dropped.state, dropped.result) == ("succeeded", None)
    assert dropped.error["type"] == "ResultNotStored"
    assert WHY in dropped.error["message"]
    assert "result is too large, not kept" in caplog.text
    assert work.broker.client.hstrlen(work.broker.keys.queue("work").ended_bucket(1), large.message_id) < 10_000


def rows_of(work: Work, actor: dramatiq.Actor[..., Any], *args: Any) -> list[EndedJob]:
    """Run a job to its end; return its rows of the history."""
    logging.getLogger().setLevel(logging.INFO)
    work.end_of(actor.send(*args))
    entries = work.broker.client.xrange(work.broker.keys.queue("work").history)
    return [row for _, fields in entries for row in decode_rows(fields[b"rows"])]


def test_each_failed_attempt_keeps_its_own_lines(works):
    work = works(max_retries=1)

    @work.actor
    def failing() -> None:
        message = dramatiq.middleware.CurrentMessage.get_current_message()
        logging.getLogger("shop").info("attempt with %s before", message.options.get("attempts", 0))
        structlog.get_logger("shop").warning("stock is low", article=7)
        raise RuntimeError("no")

    first, last = rows_of(work, failing)

    assert (first.state, last.state) == ("retrying", "dead")
    assert "info shop: attempt with 0 before" in first.logs and "attempt with 1 before" in last.logs
    assert "attempt with 0" not in last.logs
    assert "stock is low" in last.logs and "article" in last.logs
    assert len(first.error.fingerprint) == 16


def test_a_retry_that_begins_before_its_first_attempts_hooks_end_keeps_its_own_lines(works):
    work, retried = works(max_retries=1), threading.Event()

    class Slow(Middleware):
        def after_process_message(self, broker: Any, message: Any, **ended: Any) -> None:
            if not message.options.get("attempts"):
                assert retried.wait(30)

    # Its after-hook runs when the message has moved, and before that of Status.
    work.broker.add_middleware(Slow(), after=Status)

    @work.actor
    def failing() -> None:
        [message] = [held for held in work.broker.in_flight.values() if held.runs_in == threading.get_ident()]
        logging.getLogger("shop").info("attempt with %s before", message.options.get("attempts", 0))
        if message.options.get("attempts"):
            retried.set()
        raise RuntimeError("no")

    by_state = {row.state: row.logs or "" for row in rows_of(work, failing)}
    assert "attempt with 0" in by_state["retrying"] and "attempt with 1" not in by_state["retrying"]
    assert "attempt with 1" in by_state["dead"] and "attempt with 0" not in by_state["dead"]


@pytest.mark.parametrize("keep", [False, True])
def test_a_success_keeps_its_lines_only_where_its_actor_asks(work, keep):
    talking = work.actor(lambda: logging.getLogger("shop").info("done"), actor_name="talking", keep_logs=keep)

    [row] = rows_of(work, talking)

    assert (row.logs is not None) == keep


def test_lines_are_bounded_and_hide_secrets_and_hidden_arguments(works):
    work = works(max_retries=0)

    @work.actor(redact=("card",))
    def talking(card: str) -> None:
        for number in range(2_000):
            logging.getLogger("shop").info("line %05d", number)
        logging.getLogger("shop").info("paid with %s, password=hunter2222", card)
        raise RuntimeError("no")

    [row] = rows_of(work, talking, "4111-1111-1111-1111")

    assert len(row.logs.encode()) <= LOGS_LIMIT_BYTES
    assert "line 01999" in row.logs and "line 00000" not in row.logs
    assert "4111" not in row.logs and "hunter2222" not in row.logs


def test_lines_of_a_job_that_a_later_middleware_skips_are_forgotten(work):
    skipped = threading.Event()
    held: list[Any] = []

    class Gate(Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            logging.getLogger("shop").warning("closed")
            raise SkipMessage

        def after_skip_message(self, broker: Any, message: Any) -> None:
            held.append((message, kept.of(message, None)))
            skipped.set()

    work.broker.add_middleware(Gate())
    [kept] = [each._logs for each in work.broker.middleware if isinstance(each, Status)]
    with work.run():
        work.actor(lambda: None, actor_name="shut").send()
        assert skipped.wait(30)
        [(message, lines)] = held
        wait_for(lambda: kept.of(message, None) is None)
    assert "closed" in lines


@pytest.fixture
def succeed(facilities) -> Actor[[], None]:
    """An actor of the project's broker that does nothing."""
    return dramatiq.actor(lambda: None, actor_name="succeed", queue_name="default")


@pytest.fixture
def asked(monkeypatch) -> Iterator[list[str]]:
    """Names that proxies passed on to the messages inside."""
    names: list[str] = []
    passed_on = MessageProxy.__getattr__

    def note(proxy: MessageProxy, name: str) -> Any:
        names.append(name)
        return passed_on(proxy, name)

    monkeypatch.setattr(MessageProxy, "__getattr__", note)
    yield names


def test_no_hook_asks_a_message_that_succeeds_for_what_it_has_not(succeed, run_worker, asked):
    with run_worker("default"):
        jobs = [submit(succeed, kwargs={}) for _ in range(3)]
        wait_for(lambda: all((job := find_job(id_)) and job.state == "succeeded" for id_ in jobs), 30)

    assert asked == []


class Keeps(Middleware):
    """Keeps what was worked off."""

    def __init__(self) -> None:
        self.messages: list[MessageProxy] = []

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        self.messages.append(message)


def attributes(message: MessageProxy) -> list[object]:
    """Return the dictionary of a message's attributes, where the interpreter had to make one."""
    return [found for found in gc.get_referents(message) if isinstance(found, dict) and "message_id" in found]


def test_no_hook_writes_what_a_message_has_no_place_for(succeed, run_worker, monkeypatch):
    """One would cost each message a dictionary, and all that read its attributes afterwards more time."""
    keeps = Keeps()
    # The places are those of a class, which the tests before have filled: rare hooks have names of their own.
    monkeypatch.setattr(consumer, "HeldMessage", type("Fresh", (HeldMessage,), {}))

    with run_worker("default") as worker:
        worker.broker.add_middleware(keeps)
        submit(succeed, kwargs={})
        wait_for(lambda: keeps.messages, 30)

    [message] = keeps.messages
    assert attributes(message) == []
    for number in range(30):
        setattr(message, f"more_{number}", number)
    assert attributes(message), "the look would not see it"
