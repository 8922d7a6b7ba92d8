"""Requirements of a message, whether a worker's code meets them, and the cost of that check."""

from __future__ import annotations

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ActorNotFound
from structlog.testing import capture_logs

from switchyard.middleware.arguments import call_of, knows
from switchyard.middleware.parking import MOST_LOGGED, Parking


@pytest.fixture
def broker() -> StubBroker:
    broker = StubBroker(middleware=[])

    @dramatiq.actor(broker=broker)
    def report(month: str, *, language: str = "en") -> None: ...

    return broker


def message(actor: str, *args: object, **kwargs: object) -> Message[None]:
    return Message("default", actor, args, kwargs, {})


@pytest.mark.parametrize(
    ("sent", "is_known"),
    [
        (message("report", "May"), True),
        (message("report", month="May", language="de"), True),
        (message("report"), False),
        (message("report", "May", "June"), False),
        (message("report", "May", tongue="de"), False),
        (message("audit"), False),
    ],
)
def test_code_knows_a_call_by_name_number_and_names(broker: StubBroker, sent: Message[None], is_known: bool) -> None:
    assert knows(broker, call_of(sent)) is is_known


@pytest.mark.parametrize(
    "call", ["", "5", "[]", '["report"]', '["report", "x", []]', '["report", 1, 5]', "[{}, 1, []]"]
)
def test_what_is_no_call_is_known_to_nobody(broker: StubBroker, call: str) -> None:
    assert not knows(broker, call)


def test_calls_differ_by_nothing_but_name_number_and_names() -> None:
    first, second = message("a", 1, b=2, c=3), message("a", "one", c="three", b=None)

    assert call_of(first) == call_of(second)
    assert "\n" not in call_of(message("a\n", **{"b\n": 1}))


class Transport:
    """Parks every message for a second."""

    def park(self, message: Message[None], **details: object) -> int:
        return 1_000


def test_messages_with_ever_new_names_cost_a_bounded_number_of_lines_and_bytes(broker: StubBroker) -> None:
    parking = Parking(transport=Transport())  # type: ignore[arg-type]

    with capture_logs() as lines:
        for number in range(2 * MOST_LOGGED):
            held = MessageProxy(message(f"actor-{number}"))
            held.stuff_exception(ActorNotFound("unknown"))
            parking.before_nack(broker, held)

    assert len(lines) == len(parking._logged_s) == MOST_LOGGED
