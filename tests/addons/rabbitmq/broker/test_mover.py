"""A message that cannot be moved after its long delay keeps no other one from its queue, and is not lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import MiddlewareError

from switchyard.addons.rabbitmq import mover
from switchyard.broker.errors import BrokerRefused, BrokerUnavailable
from switchyard.broker.stores.limit_counts import Lock
from tests.waiting import wait_for

Build = Callable[..., Any]


class Refused(MiddlewareError):
    """A middleware's own error."""


class Refuses:
    """``emit_before`` of a broker that raises an error when messages of one actor are enqueued."""

    def __init__(self, broker: Any, error: Exception) -> None:
        self.before, self.error, self.tries = broker.emit_before, error, 0

    def __call__(self, signal: str, *args: Any, **kwargs: Any) -> None:
        self.before(signal, *args, **kwargs)
        if signal == "enqueue" and args[0].actor_name == "refused":
            self.tries += 1
            raise self.error


def keep(broker: Any, *actors: str) -> None:
    """Store messages of actors with a long delay, due in this order."""
    for number, actor in enumerate(actors):
        broker.mover.delays.add("work", f"{actor}-{number}", broker.body_of(message(actor)), delay_ms=number - 1_000)


def message(actor: str) -> dramatiq.Message[Any]:
    return dramatiq.Message("work", actor, (), {}, {})


@pytest.mark.parametrize("error", [Refused("no"), BrokerRefused("a declaration", "406")], ids=["middleware", "server"])
def test_a_refused_message_is_kept_and_the_others_are_moved(
    rabbit_yard: Build, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    broker = rabbit_yard()
    monkeypatch.setattr(mover, "REFUSED_AGAIN_MS", 0)
    keep(broker, "refused", "job")
    broker.emit_before = refuses = Refuses(broker, error)

    moved = [broker.mover.move() for _ in range(2)]

    assert (moved, refuses.tries) == ([1, 0], 2)
    assert broker.mover.delays.count(["work"]) == [1]
    wait_for(lambda: broker.lane_stats("work").waiting == 1)
    told = [record.getMessage() for record in caplog.records if "refused-0" in record.getMessage()]
    assert len(told) == 1 and str(error) in told[0]


def test_a_hundred_refused_messages_leave_room_for_the_next(rabbit_yard: Build) -> None:
    broker = rabbit_yard()
    broker.emit_before = Refuses(broker, Refused("no"))
    keep(broker, *["refused"] * mover.AT_ONCE, "job")

    assert [broker.mover.move() for _ in range(2)] == [0, 1]
    assert broker.mover.delays.count(["work"]) == [mover.AT_ONCE]


def test_a_queue_that_does_not_answer_keeps_back_its_own_messages_alone(rabbit_yard: Build) -> None:
    broker = rabbit_yard()
    keep(broker, "refused", "job", "refused")
    broker.mover.delays.add("work-retry", "other-1", broker.body_of(message("other")), delay_ms=-1)
    broker.emit_before = refuses = Refuses(broker, BrokerUnavailable("a publish", "away"))

    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            broker.mover.move()

    assert broker.mover.delays.count(["work", "work-retry"]) == [3, 0]
    assert refuses.tries == 2
    broker.emit_before = refuses.before
    assert broker.mover.move() == 3


def test_what_is_no_message_is_quarantined(rabbit_yard: Build) -> None:
    broker = rabbit_yard()
    broker.mover.delays.add("work-retry", "broken", b"\xff{", delay_ms=-1_000)

    assert broker.mover.move() == 0

    [found] = broker.unreadable.page("work", cursor=0, limit=10).items
    assert (found.id, found.queue, found.raw) == ("broken", "work-retry", b"\xff{")
    assert broker.mover.delays.count(["work-retry"]) == [0]


def test_a_slow_pass_renews_its_lock_and_ends_once_another_process_holds_it(
    rabbit_yard: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, sent = rabbit_yard(), list[str]()
    monkeypatch.setattr(mover, "RENEW_S", 0.0)
    keep(broker, "job", "job", "job")
    other = Lock(broker.mover.delays._calls, broker.keys, "long-delays", lease_ms=60_000)

    def enqueue(message: dramatiq.Message[Any]) -> None:
        sent.append(message.message_id)
        if len(sent) == 1:
            assert not other.acquire()
        else:
            broker.mover._lock.release()
            assert other.acquire()

    monkeypatch.setattr(broker.mover, "_enqueue", enqueue)

    assert broker.mover.move() == 2
    assert broker.mover.delays.count(["work"]) == [1]
