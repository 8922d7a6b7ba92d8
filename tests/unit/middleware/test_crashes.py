"""Decision about a message whose last worker died."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dramatiq
import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from dramatiq.middleware import SkipMessage, TimeLimitExceeded

from switchyard.broker.clock import now_ms
from switchyard.middleware.crashes import Crashes, HardLimitExceeded, Poison, SuspectedPoison
from switchyard.middleware.outcomes import fingerprint_of, outcome_of
from switchyard.middleware.redaction import HIDDEN, Redaction, without_arguments


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
    held.crashes, held.cause, held.lapses = crashes, cause, lapses  # type: ignore[attr-defined]
    return held


def broker(slots: int, *, runs_suspects: bool = False) -> StubBroker:
    """Return the broker of a worker that runs so many messages at once."""
    built = StubBroker()
    built.slots, built.runs_suspects = slots, runs_suspects  # type: ignore[attr-defined]
    return built


LAPSES = tuple(f"{1_790_000_000_000 + number}@host-{number % 2}" for number in range(5))


@pytest.mark.parametrize("slots", [1, 8])
def test_a_lapse_suspect_is_isolated_wherever_others_may_run_beside_it(slots: int) -> None:
    transport, held = Transport(), message(0, "alone", LAPSES[:4])

    with pytest.raises(SkipMessage):
        Crashes(transport=transport).before_process_message(broker(slots), held)  # type: ignore[arg-type]

    assert transport.isolated == [held]
    assert outcome_of(held).reason == "alone"


def test_a_lapse_suspect_runs_in_an_exclusive_child() -> None:
    held = message(0, "alone", LAPSES[:4])

    Crashes(transport=Transport()).before_process_message(broker(1, runs_suspects=True), held)  # type: ignore[arg-type]


def test_the_fifth_counted_lapse_is_the_last_and_says_where_and_when_they_were() -> None:
    with pytest.raises(SuspectedPoison, match=r"5 times its pool's .* on host-0, host-1; look there") as raised:
        Crashes(transport=Transport()).before_process_message(broker(8), message(0, "alone", LAPSES))  # type: ignore[arg-type]

    told = "".join(traceback.format_exception(raised.value))
    assert told.count("found expired at 2026-09-21") == 5
    assert "on host host-1" in told


@pytest.mark.parametrize("held", [message(), MessageProxy(Message("work", "job", (), {}, {}))])
def test_a_message_without_a_past_runs(held: MessageProxy) -> None:
    transport = Transport()

    Crashes(transport=transport).before_process_message(broker(8), held)  # type: ignore[arg-type]

    assert transport.isolated == []


@pytest.mark.parametrize("noted", [(1, "killed by SIGSEGV"), (2, "x"), (0, "alone")])
def test_one_that_may_crash_is_set_apart_from_neighbours(noted: tuple[int, str]) -> None:
    transport, held = Transport(), message(*noted)

    with pytest.raises(SkipMessage):
        Crashes(transport=transport).before_process_message(broker(8), held)  # type: ignore[arg-type]

    assert transport.isolated == [held]
    assert outcome_of(held).kind == "deferred"


def test_where_it_has_no_neighbours_it_runs() -> None:
    transport = Transport()

    Crashes(transport=transport).before_process_message(broker(1), message(2, "killed"))  # type: ignore[arg-type]

    assert transport.isolated == []


def test_where_there_is_no_place_apart_it_runs() -> None:
    Crashes(transport=Transport(possible=False)).before_process_message(broker(8), message(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("slots", [1, 8])
def test_the_third_crash_is_the_last(slots: int) -> None:
    with pytest.raises(Poison, match="3 times, last killed by SIGSEGV, pid 7"):
        Crashes(transport=Transport()).before_process_message(  # type: ignore[arg-type]
            broker(slots), message(3, "killed by SIGSEGV, pid 7")
        )


def test_a_poison_message_tells_how_its_worker_ended_and_hides_what_its_actor_hides() -> None:
    known = broker(1)

    known.add_middleware(Redaction())

    @dramatiq.actor(broker=known, actor_name="job", redact=["card"])
    def job(order: int, card: str) -> None:
        """Never runs."""

    held = MessageProxy(Message("default", "job", (7,), {"card": "4111 1111"}, {}))
    held.crashes = 3  # type: ignore[attr-defined]
    held.cause = "killed by SIGSEGV, pid 7, at most 93 MB\ncharging 4111 1111\nsent"  # type: ignore[attr-defined]

    with pytest.raises(Poison) as raised:
        Crashes(transport=Transport()).before_process_message(known, held)  # type: ignore[arg-type]

    told = "".join(traceback.format_exception(raised.value))
    assert "charging" not in str(raised.value)
    assert "Actor: job\n" in told
    assert f"Fingerprint of its arguments: {fingerprint_of({'args': [7], 'kwargs': {'card': HIDDEN}})}\n" in told
    assert "Its worker ended: killed by SIGSEGV, pid 7, at most 93 MB\n" in told
    assert "last log lines:\ncharging [redacted]\nsent\n" in told
    assert "4111" not in told


@pytest.mark.parametrize("card", ["4111 größe", 'a "quoted" one', "two\nlines", "back\\slash"])
@pytest.mark.parametrize("write", [str, json.dumps, repr])
def test_hidden_arguments_are_found_however_a_log_writes_them(card: str, write: Callable[[str], str]) -> None:
    known = broker(1)
    known.add_middleware(Redaction())

    @dramatiq.actor(broker=known, actor_name="job", redact=["card"])
    def job(card: str) -> None:
        """Never runs."""

    said = without_arguments(job, {"args": [], "kwargs": {"card": card}}, f"charging {write(card)}, please")

    assert write(card).strip("\"'") not in said
    assert "charging" in said and "please" in said


@pytest.mark.parametrize("write", [lambda paid: paid, lambda paid: paid.at, lambda paid: repr(paid.at)])
def test_hidden_arguments_are_found_as_the_actor_logs_them(write: Callable[[Any], Any]) -> None:
    known, paid = broker(1), Payment(datetime(2026, 5, 1, 12, 30, tzinfo=UTC))
    known.add_middleware(Redaction())

    @dramatiq.actor(broker=known, actor_name="job", redact=["paid"])
    def job(paid: Payment) -> None:
        """Never runs."""

    payload = {"args": [{"at": "2026-05-01T12:30:00Z"}], "kwargs": {}}
    said = without_arguments(job, payload, f"charging {write(paid)}, please")

    assert said == f"charging {HIDDEN}, please"


@pytest.mark.parametrize("slots", [1, 8])
def test_one_that_was_killed_for_its_limit_has_had_its_attempt(slots: int) -> None:
    held, before_ms = message(0, "limit of 3 s"), now_ms()
    with pytest.raises(HardLimitExceeded, match="hard limit of 3 s") as raised:
        Crashes(transport=Transport()).before_process_message(broker(slots), held)  # type: ignore[arg-type]

    assert isinstance(raised.value, TimeLimitExceeded)
    assert before_ms <= held.started_ms + 3_000 <= now_ms(), "it ran until its limit"
