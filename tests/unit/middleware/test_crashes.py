"""What is decided about a message whose last worker died."""

from __future__ import annotations

from typing import Any

import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message
from dramatiq.middleware import SkipMessage, TimeLimitExceeded

from middleware.crashes import Crashes, HardLimitExceeded, Poison
from middleware.outcomes import outcome_of


class Transport:
    """Notes what is set apart."""

    def __init__(self, *, possible: bool = True) -> None:
        self.possible = possible
        self.isolated: list[Any] = []

    def isolate(self, held: Any) -> bool:
        self.isolated.append(held)
        return self.possible


def message(crashes: int = 0, cause: str = "") -> MessageProxy:
    """Return a message with what is noted of its crashes."""
    held = MessageProxy(Message("work", "job", (), {}, {}))
    held.crashes, held.cause = crashes, cause  # type: ignore[attr-defined]
    return held


def broker(slots: int) -> StubBroker:
    """Return the broker of a worker that runs so many messages at once."""
    built = StubBroker()
    built.slots = slots  # type: ignore[attr-defined]
    return built


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


@pytest.mark.parametrize("slots", [1, 8])
def test_one_that_was_killed_for_its_limit_has_had_its_attempt(slots: int) -> None:
    with pytest.raises(HardLimitExceeded, match="hard limit of 3 s") as raised:
        Crashes(transport=Transport()).before_process_message(broker(slots), message(0, "limit of 3 s"))  # type: ignore[arg-type]

    assert isinstance(raised.value, TimeLimitExceeded)
