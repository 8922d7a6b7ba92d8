"""While actors are imported a broker sends nothing; afterwards it is as it was."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from switchyard.middleware.errors import SendingFile
from switchyard.workers.discovery import no_sends

FILE = "loyalty/actors.py"


@pytest.fixture
def broker() -> StubBroker:
    """A broker with an actor."""
    broker = StubBroker()
    dramatiq.actor(lambda: None, actor_name="hello", broker=broker)
    return broker


def imported(code: str, broker: StubBroker) -> None:
    """Run code as that of a module of actors."""
    exec(compile(code, FILE, "exec"), {"__name__": "loyalty.actors", "broker": broker})


@pytest.mark.parametrize("call", ["enqueue(message)", "enqueue(message=message)", "enqueue_many(messages=[message])"])
def test_a_message_of_a_module_is_refused_however_it_is_passed(broker: StubBroker, call: str) -> None:
    broker.enqueue_many = lambda messages: None  # type: ignore[attr-defined]

    with no_sends(broker), pytest.raises(SendingFile, match=FILE):
        imported(f"message = broker.get_actor('hello').message()\nbroker.{call}", broker)


def test_what_else_is_sent_meanwhile_reaches_the_broker(broker: StubBroker) -> None:
    with no_sends(broker):
        exec(
            compile("broker.enqueue(message=m)", "go", "exec"),
            {
                "__name__": "__main__",
                "broker": broker,
                "m": broker.get_actor("hello").message(),
            },
        )

    assert broker.queues["default"].qsize() == 1


def test_a_broker_that_was_patched_before_stays_so(broker: StubBroker) -> None:
    sent: list[Any] = []
    broker.enqueue = sent.append  # type: ignore[method-assign,assignment]

    with no_sends(broker), no_sends(broker):
        pass
    broker.get_actor("hello").broker.enqueue("a message")  # type: ignore[arg-type]

    assert sent == ["a message"]


def test_a_broker_has_its_own_methods_again(broker: StubBroker) -> None:
    with no_sends(broker), no_sends(broker):
        pass

    assert "enqueue" not in vars(broker)
