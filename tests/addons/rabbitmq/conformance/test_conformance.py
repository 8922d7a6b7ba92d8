"""The promises of every transport, on RabbitMQ; requeues of one dead letter by several operators, and repeated ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dramatiq.middleware import MiddlewareError

from switchyard.addons.rabbitmq import unique_claims
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.shapes import Moved
from tests.addons.rabbitmq.conformance.subject import Rabbit
from tests.integration.broker.conformance.test_letters import *  # noqa: F403
from tests.integration.broker.conformance.test_letters import dead_letter
from tests.integration.broker.conformance.test_moves import *  # noqa: F403


def requeues(subject: Rabbit) -> Callable[[str], Moved]:
    """Return a function that requeues one letter with a nonce."""
    made = dead_letter(subject)
    return lambda nonce: subject.transport.requeue("work", {made.id: made.died_at}, nonce=nonce)[made.id]


def test_of_two_requeues_at_a_time_one_sends_the_letter(subject: Rabbit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unique_claims, "PATIENCE_S", 0.05)
    requeue, refused = requeues(subject), list[str]()

    def second() -> None:
        with pytest.raises(BrokerUnavailable, match=r"another requeue of .* has not ended") as raised:
            requeue("second")
        refused.append(raised.value.outcome)

    subject.meanwhile.act = second
    answers = [requeue("first"), requeue("second"), requeue("first")]

    assert refused == ["refused"]
    assert answers == ["moved", "gone", "moved"]
    assert subject.transport.stats("work").live.waiting == 1


def test_a_letter_whose_requeue_failed_is_requeued_at_once(subject: Rabbit) -> None:
    requeue = requeues(subject)

    def refuse() -> None:
        raise MiddlewareError("of a release that knows its actor no more")

    subject.meanwhile.act = refuse

    assert [requeue("first"), requeue("second")] == ["unread", "moved"]
    assert subject.transport.stats("work").live.waiting == 1
