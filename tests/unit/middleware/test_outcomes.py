"""Outcome of an attempt: its texts and numbers, its retries, its crashes, and what follows."""

import json
import logging
import math
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import dramatiq
import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import Retry
from dramatiq.message import Message
from dramatiq.middleware import Callbacks, Pipelines, SkipMessage, TimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.stores.history_streams import EndedJob, Step, ended_step
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.result_stores import ResultStores
from switchyard.broker.topology import RetryPolicy, Yard
from switchyard.broker.worker.acks import AckBarrier
from switchyard.middleware.callbacks import DurableCallbacks, DurablePipelines, report_failure
from switchyard.middleware.crashes import Crashes, HardLimitExceeded, Poison, SuspectedPoison
from switchyard.middleware.errors import RetryLater
from switchyard.middleware.outcomes import attempt, fingerprint, fingerprint_of, outcome_of, text_of, traceback_of
from switchyard.middleware.redaction import HIDDEN, Redaction, without_arguments
from switchyard.middleware.retries import bounds_of, delay_of, is_never_retried, is_retried, max_retries_of, span_of
from switchyard.middleware.status import Status, result_of


def test_the_text_of_an_exception_is_made_once():
    class Slow(Exception):
        made = 0

        def __str__(self) -> str:
            Slow.made += 1
            return "slow"

    error = Slow()

    assert (text_of(error), text_of(error), Slow.made) == ("slow", "slow", 1)


def test_an_exception_that_cannot_be_formatted_is_shown_with_its_frames():
    try:
        raise SyntaxError("bad", ("f.py", 1, "two", "text"))
    except SyntaxError as error:
        text = traceback_of(error)

    assert text.endswith("SyntaxError: bad (f.py, line 1)\n") and "test_outcomes.py" in text


@pytest.mark.parametrize(("value", "expected"), [(2, 3), ("many", 1), (None, 1), (-5, 1), (True, 1)])
def test_a_count_that_a_task_has_overwritten_is_none(value, expected):
    assert attempt(Message("work", "a", (), {}, {"attempts": value})) == expected


@pytest.mark.parametrize(("value", "text"), [(None, "null"), ("", '""'), (0, "0"), ({"a": (1,)}, '{"a": [1]}')])
def test_a_result_is_kept_as_json_and_none_is_one(value, text):
    assert result_of(SimpleNamespace(message_id="j"), value, ResultStores()) == (text, "", None)


def _fail(number: int) -> None:
    raise ValueError(f"order {number}")


def _fail_elsewhere() -> None:
    raise ValueError("order 1")


def _caught(function: object, *args: object) -> BaseException:
    try:
        function(*args)
    except ValueError as error:
        return error
    raise AssertionError("did not fail")


def test_actor_exception_and_place_matter_and_numbers_in_the_message_do_not():
    base = fingerprint("a", _caught(_fail, 1))

    assert base == fingerprint("a", _caught(_fail, 2))
    assert base != fingerprint("b", _caught(_fail, 1))
    assert base != fingerprint("a", _caught(_fail_elsewhere))
    assert base != fingerprint("a", KeyError("order"))
    assert len(base) == 16


class NoAnswer:
    """Records on a server that is away."""

    addon = None

    def write(self, steps: Sequence[Step]) -> None:
        raise BrokerUnavailable("job_write", "timed out")


def test_a_worker_that_ends_without_its_server_says_so_in_one_line(caplog):
    barrier = AckBarrier(cast(JobRecords, NoAnswer()))
    barrier.add(ended_step("default", EndedJob("a", "succeeded")))
    status = Status(yard=cast(Yard, None), barrier=barrier)

    with caplog.at_level(logging.WARNING):
        StubBroker(middleware=[status]).emit_after("worker_shutdown", cast(Any, None))

    [line] = caplog.records
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert line.getMessage().startswith(
        "job records are not written at the end of the worker, jobs that ended may run again: "
    )
    assert barrier.pending, "the last flush of the child tries once more"


def test_an_actor_that_is_declared_again_brings_its_options():
    broker, kept = StubBroker(middleware=[]), []
    status = Status(yard=cast(Yard, None), barrier=AckBarrier(cast(JobRecords, NoAnswer())))
    broker.add_middleware(status)
    for store in (False, True, False):
        dramatiq.actor(broker=broker, actor_name="again", store_results=store)(lambda: None)
        kept.append((status._kept["again"].store_results, status._kept["again"].is_plain))
        del broker.actors["again"]

    assert kept == [(False, True), (True, False), (False, True)]


ERROR = RuntimeError("no")
DELAYS = st.lists(st.integers(0, 36_000_000), min_size=1, max_size=8)


@given(retry=st.integers(1, 10_000), base_ms=st.integers(1, 60_000), over_base_ms=st.integers(0, 3_600_000))
def test_a_delay_is_between_half_of_the_doubled_and_capped_base_and_all_of_it(retry, base_ms, over_base_ms):
    cap_ms = base_ms + over_base_ms
    policy = RetryPolicy(base_ms=base_ms, cap_ms=cap_ms)

    delay_ms = delay_of(retry, policy, ERROR)

    longest_ms = min(cap_ms, base_ms * 2 ** (retry - 1))
    assert longest_ms // 2 <= delay_ms <= longest_ms


@given(delays_ms=DELAYS, retry=st.integers(1, 20))
def test_a_named_delay_has_the_same_jitter_and_the_last_one_repeats(delays_ms, retry):
    longest_ms = delays_ms[min(retry, len(delays_ms)) - 1]

    assert longest_ms // 2 <= delay_of(retry, RetryPolicy(delays_ms=tuple(delays_ms)), ERROR) <= longest_ms


@given(delay_s=st.floats(0, 86_400, allow_nan=False))
def test_retry_after_is_a_lower_bound(delay_s):
    delay_ms = delay_of(1, RetryPolicy(base_ms=500), RetryLater(delay_s, "later"))

    assert int(delay_s * 1000) <= delay_ms <= int(delay_s * 1000) + 500 or 250 <= delay_ms <= 500


@pytest.mark.parametrize("delay_s", ["5", None, float("nan"), float("inf")])
def test_a_time_that_is_no_number_of_seconds_is_refused(delay_s):
    with pytest.raises(ValueError, match=r"^RetryLater: delay_s is .*; write a number of seconds"):
        RetryLater(delay_s, "busy")


def test_retry_after_a_second_does_not_shorten_a_schedule_of_hours():
    policy = RetryPolicy(delays_ms=(5_000, 300_000, 7_200_000))

    delays_ms = [delay_of(retry, policy, RetryLater(1, "busy")) for retry in (1, 2, 3)]

    assert delays_ms[1] >= 150_000
    assert delays_ms[2] >= 3_600_000


def test_own_functions_and_a_delay_that_the_actor_names_are_taken_as_they_are_the_actors_first():
    policy = RetryPolicy(backoff=lambda retry: retry * 7)

    assert delay_of(3, policy, ERROR) == 21
    assert delay_of(3, policy, ERROR, lambda retry: 1_000_000_000) == 1_000_000_000
    named = RetryPolicy(delays_ms=(1_000, 7_200_000))
    assert 30_000 <= delay_of(2, named, Retry("not yet", delay=30_000)) <= 31_000


def test_a_hurried_yard_divides_the_delays_of_policies_and_functions_and_none_that_a_server_asked_for():
    policy = RetryPolicy(delays_ms=(7_200_000,))

    assert 3_600 <= delay_of(1, policy, ERROR, speed=1_000) <= 7_200
    assert delay_of(1, policy, ERROR, lambda retry: 60_000, speed=1_000) == 60
    assert 60_000 <= delay_of(1, policy, RetryLater(60, "busy"), speed=1_000) <= 67_200


POLICY = RetryPolicy(max_retries=3, base_ms=1_000, cap_ms=60_000)


def of(**options: Any) -> Any:
    return SimpleNamespace(actor_name="send_mail", options=options)


@pytest.mark.parametrize(
    ("of_message", "of_actor", "most"),
    [
        ({}, {}, 3),
        ({}, {"max_retries": 1}, 1),
        ({"max_retries": 0}, {"max_retries": 1}, 0),
        ({"max_retries": None}, {"max_retries": 1}, math.inf),
        ({}, {"max_retries": None}, math.inf),
        ({"max_retries": "many"}, {"max_retries": 1}, 1),
    ],
)
def test_the_messages_number_goes_before_the_actors_and_none_is_without_end(of_message, of_actor, most):
    assert max_retries_of(of(**of_message), of(**of_actor), POLICY) == most


def test_retry_when_decides_alone_with_the_retries_so_far_and_one_that_fails_leaves_it_to_the_number():
    asked: list[Any] = []

    def decides(retries: int, exception: BaseException) -> bool:
        asked.append((retries, exception))
        return retries < 5

    actor = of(retry_when=decides, max_retries=1)

    assert [is_retried(of(), actor, POLICY, ERROR, retry) for retry in (1, 5, 6)] == [True, True, False]
    assert asked == [(0, ERROR), (4, ERROR), (5, ERROR)]

    actor = of(retry_when=lambda retries, exception: 1 / 0, max_retries=1)

    assert [is_retried(of(), actor, POLICY, ERROR, retry) for retry in (1, 2)] == [True, False]


@pytest.mark.parametrize("classes", [KeyError, (KeyError,), [ValueError, KeyError]])
def test_exceptions_in_throws_are_never_retried(classes):
    assert is_never_retried(of(throws=classes), KeyError("a"), "throws")
    assert not is_never_retried(of(throws=classes), RuntimeError("a"), "throws")


@pytest.mark.parametrize(
    ("of_message", "of_actor", "bounds"),
    [
        ({}, {}, None),
        ({}, {"min_backoff": 10, "max_backoff": 500}, (10, 500)),
        ({}, {"min_backoff": 10}, (10, 60_000)),
        ({}, {"min_backoff": 100_000}, (100_000, 100_000)),
        ({}, {"max_backoff": 500}, (1_000, 500)),
        ({"min_backoff": 20}, {"min_backoff": 10, "max_backoff": 500}, (20, 500)),
        ({"min_backoff": 20}, {"backoff": lambda retry: 1}, (20, 60_000)),
        ({}, {"backoff": lambda retry: 1, "min_backoff": 10}, None),
        ({}, {"max_backoff": 30 * 24 * 3_600_000}, (1_000, 7 * 24 * 3_600_000)),
        ({"min_backoff": "long"}, {"min_backoff": 10}, (10, 60_000)),
    ],
)
def test_bounds_come_from_message_actor_and_policy(of_message, of_actor, bounds):
    assert bounds_of(of_message, of(**of_actor), POLICY) == bounds


def test_a_delay_between_bounds_doubles_from_the_least_and_keeps_below_the_most():
    for _ in range(100):
        delays = [delay_of(retry, POLICY, ERROR, bounds=(10, 100)) for retry in range(1, 7)]

        assert 10 <= delays[0] <= 20
        assert 20 <= delays[1] <= 40
        assert all(50 <= delay <= 100 for delay in delays[4:])


def test_the_span_of_an_actor_counts_its_bounds_and_a_thousand_of_endless_retries():
    assert span_of(of(min_backoff=10, max_backoff=100, max_retries=4), POLICY) == (
        10 + 20 + 40 + 50,
        20 + 40 + 80 + 100,
    )
    assert span_of(of(max_retries=None, min_backoff=100, max_backoff=100), POLICY) == (1_000 * 50, 1_000 * 100)


@dataclass
class Payment:
    """Argument with a type."""

    at: datetime


class Transport:
    """Notes what is set apart."""

    def __init__(self, *, possible: bool = True) -> None:
        self.possible = possible
        self.isolated: list[Any] = []

    def isolate(self, held: Any) -> bool:
        self.isolated.append(held)
        return self.possible


def message(crashes: int = 0, cause: str = "", lapses: tuple[str, ...] | None = None) -> MessageProxy:
    """Return a message with what is noted of its crashes."""
    held = MessageProxy(Message("work", "job", (), {}, {}))
    held.crashes, held.cause, held.lapses = crashes, cause, lapses
    return held


def broker_of(slots: int, *, runs_suspects: bool = False) -> StubBroker:
    """Return the broker of a worker that runs so many messages at once."""
    built = StubBroker()
    built.slots, built.runs_suspects = slots, runs_suspects
    return built


LAPSES = tuple(f"{1_790_000_000_000 + number}@host-{number % 2}" for number in range(5))
SUSPECT = (0, "alone", LAPSES[:4])


@pytest.mark.parametrize(
    ("slots", "noted"), [(1, SUSPECT), (8, SUSPECT), (8, (1, "killed by SIGSEGV")), (8, (2, "x")), (8, (0, "alone"))]
)
def test_one_that_may_crash_is_set_apart_from_neighbours(slots, noted):
    transport, held = Transport(), message(*noted)

    with pytest.raises(SkipMessage):
        Crashes(transport=transport).before_process_message(broker_of(slots), held)

    assert (transport.isolated, outcome_of(held).kind) == ([held], "deferred")
    assert outcome_of(held).reason == "alone"


@pytest.mark.parametrize(
    ("worker", "held"),
    [
        (broker_of(1, runs_suspects=True), message(*SUSPECT)),
        (broker_of(8), message()),
        (broker_of(8), MessageProxy(Message("work", "job", (), {}, {}))),
        (broker_of(1), message(2, "killed")),
    ],
    ids=["a suspect in an exclusive child", "without a past", "of another broker", "without neighbours"],
)
def test_one_that_harms_no_neighbours_runs(worker, held):
    transport = Transport()

    Crashes(transport=transport).before_process_message(worker, held)

    assert transport.isolated == []


def test_where_there_is_no_place_apart_it_runs():
    Crashes(transport=Transport(possible=False)).before_process_message(broker_of(8), message(1))


def test_the_fifth_counted_lapse_is_the_last_and_says_where_and_when_they_were():
    with pytest.raises(SuspectedPoison, match=r"5 times its pool's .* on host-0, host-1; look there") as raised:
        Crashes(transport=Transport()).before_process_message(broker_of(8), message(0, "alone", LAPSES))

    told = "".join(traceback.format_exception(raised.value))
    assert told.count("found expired at 2026-09-21") == 5
    assert "on host host-1" in told


@pytest.mark.parametrize("slots", [1, 8])
def test_the_third_crash_is_the_last(slots):
    with pytest.raises(Poison, match="3 times, last killed by SIGSEGV, pid 7"):
        Crashes(transport=Transport()).before_process_message(broker_of(slots), message(3, "killed by SIGSEGV, pid 7"))


def hiding(function: Any, *names: str) -> tuple[StubBroker, Any]:
    """Declare an actor that hides arguments; return its broker, too."""
    known = broker_of(1)
    known.add_middleware(Redaction())
    return known, dramatiq.actor(function, broker=known, actor_name="job", redact=names)


def test_a_poison_message_tells_how_its_worker_ended_and_hides_what_its_actor_hides():
    known, _ = hiding(lambda order, card: None, "card")
    held = MessageProxy(Message("default", "job", (7,), {"card": "4111 1111"}, {}))
    held.crashes = 3
    held.cause = "killed by SIGSEGV, pid 7, at most 93 MB\ncharging 4111 1111\nsent"

    with pytest.raises(Poison) as raised:
        Crashes(transport=Transport()).before_process_message(known, held)

    told = "".join(traceback.format_exception(raised.value))
    assert "charging" not in str(raised.value) and "Actor: job\n" in told
    assert f"Fingerprint of its arguments: {fingerprint_of({'args': [7], 'kwargs': {'card': HIDDEN}})}\n" in told
    assert "Its worker ended: killed by SIGSEGV, pid 7, at most 93 MB\n" in told
    assert "last log lines:\ncharging [redacted]\nsent\n" in told and "4111" not in told


@pytest.mark.parametrize("card", ["4111 größe", 'a "quoted" one', "two\nlines", "back\\slash"])
@pytest.mark.parametrize("write", [str, json.dumps, repr])
def test_hidden_arguments_are_found_however_a_log_writes_them(card, write):
    _, job = hiding(lambda card: None, "card")

    said = without_arguments(job, {"args": [], "kwargs": {"card": card}}, f"charging {write(card)}, please")

    assert write(card).strip("\"'") not in said
    assert "charging" in said and "please" in said


@pytest.mark.parametrize("write", [lambda paid: paid, lambda paid: paid.at, lambda paid: repr(paid.at)])
def test_hidden_arguments_are_found_as_the_actor_logs_them(write):
    def pay(paid: Payment) -> None: ...

    _, job = hiding(pay, "paid")
    paid = Payment(datetime(2026, 5, 1, 12, 30, tzinfo=UTC))

    payload = {"args": [{"at": "2026-05-01T12:30:00Z"}], "kwargs": {}}
    assert without_arguments(job, payload, f"charging {write(paid)}, please") == f"charging {HIDDEN}, please"


@pytest.mark.parametrize("slots", [1, 8])
def test_one_that_was_killed_for_its_limit_has_had_its_attempt(slots):
    held, before_ms = message(0, "limit of 3 s"), now_ms()
    with pytest.raises(HardLimitExceeded, match="hard limit of 3 s") as raised:
        Crashes(transport=Transport()).before_process_message(broker_of(slots), held)

    assert isinstance(raised.value, TimeLimitExceeded)
    assert before_ms <= held.started_ms + 3_000 <= now_ms(), "it ran until its limit"


FAILURE = ValueError("no")


@pytest.fixture
def broker() -> StubBroker:
    broker = StubBroker(middleware=[DurablePipelines(), DurableCallbacks()])

    @dramatiq.actor(broker=broker)
    def alone(*given: Any) -> None: ...

    @dramatiq.actor(broker=broker, on_success="told", on_failure="told")
    def followed(*given: Any) -> None: ...

    @dramatiq.actor(broker=broker)
    def told(*given: Any) -> None: ...

    return broker


def _sent(broker: StubBroker, middleware: Any, message: MessageProxy, exception: BaseException | None) -> list[Any]:
    if isinstance(middleware, DurableCallbacks) and exception is not None:
        report_failure(broker, message, exception)
    else:
        middleware.after_process_message(broker, message, result=1, exception=exception)
    queue = broker.queues["default"]
    return [dramatiq.Message.decode(queue.get_nowait()) for _ in range(queue.qsize())]


@pytest.mark.parametrize("actor", ["alone", "followed"])
@pytest.mark.parametrize("exception", [None, FAILURE])
@pytest.mark.parametrize("option", [None, "pipe_target", "on_success", "on_failure"])
def test_what_follows_is_what_follows_in_dramatiq(broker, actor, exception, option):
    options: dict[str, Any] = {option: "told"} if option else {}
    if option == "pipe_target":
        options = {option: broker.get_actor("told").message(5).asdict()}
    message = MessageProxy(broker.get_actor(actor).message_with_options(args=(3,), **options))

    for ours, theirs in ((DurablePipelines(), Pipelines()), (DurableCallbacks(), Callbacks())):
        expected = [(each.actor_name, each.args) for each in _sent(broker, theirs, message, exception)]
        assert [(each.actor_name, each.args) for each in _sent(broker, ours, message, exception)] == expected


@pytest.mark.parametrize("callback", ["told", "of newer code"])
def test_a_callback_that_is_sent_again_after_a_lost_answer_is_the_same_message(broker, monkeypatch, callback):
    enqueue, sent = broker.enqueue, []

    def lose_answer(message: dramatiq.Message[Any]) -> dramatiq.Message[Any]:
        sent.append(message.message_id)
        if len(sent) == 1:
            raise BrokerUnavailable("enqueue", "timed out")
        return enqueue(message)

    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.001)
    monkeypatch.setattr(broker, "enqueue", lose_answer)
    message = MessageProxy(broker.get_actor("alone").message_with_options(args=(3,), on_success=callback))

    DurableCallbacks().after_process_message(broker, message, result=1)

    assert (len(sent), len(set(sent))) == (2, 1)
