"""Whether quorum queues confirm is judged after more than one error, and only by errors that say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pika.exceptions import AMQPConnectionError, AMQPHeartbeatTimeout, ChannelClosedByBroker, ConnectionClosedByBroker

from switchyard.addons.rabbitmq.connections import unavailable
from switchyard.addons.rabbitmq.majority import confirms
from switchyard.addons.rabbitmq.queues import RabbitQueues
from switchyard.broker.errors import BrokerUnavailable

NO_LEADER = ConnectionClosedByBroker(541, "INTERNAL_ERROR - Cannot get a message from queue: nodedown")


class Publishers:
    """Lends channels on which a fetch fails with the next of ``errors``; a login fails with ``refused``."""

    def __init__(self, *errors: Exception | None, refused: Exception | None = None) -> None:
        self.errors, self.refused, self.called = list(errors), refused, list[str]()

    @contextmanager
    def channel(self, *, within_s: float) -> Iterator[Publishers]:
        if self.refused:
            raise self.refused
        yield self

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> None:
            self.called.append(name)
            if name == "basic_get" and self.errors:
                error = self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]
                if error is not None:
                    raise error

        return call


def asked(publishers: Any, kind: Any = "quorum") -> bool:
    return confirms(publishers, RabbitQueues("test", kind), within_s=0.5)


def test_a_queue_that_elects_a_leader_confirms() -> None:
    assert asked(Publishers(NO_LEADER, NO_LEADER, None))


@pytest.mark.parametrize("error", [NO_LEADER, AMQPHeartbeatTimeout("no answer within 1.5 s")])
def test_a_queue_that_never_answers_confirms_nothing(error: Exception) -> None:
    assert not asked(Publishers(error))


def test_a_server_without_a_connection_is_unavailable() -> None:
    with pytest.raises(BrokerUnavailable, match="AMQPConnectionError"):
        asked(Publishers(refused=AMQPConnectionError()))


def test_a_user_without_a_right_to_the_queue_proves_nothing() -> None:
    assert asked(Publishers(ChannelClosedByBroker(403, "ACCESS_REFUSED")))


def test_a_user_without_a_right_is_told_which_command_gives_it() -> None:
    refused = unavailable("a publish", ChannelClosedByBroker(403, "ACCESS_REFUSED - access to exchange 'amq.default'"))

    assert "rabbitmqctl set_permissions" in str(refused)
    assert "is up" not in str(refused)


def test_classic_queues_are_asked_nothing() -> None:
    publishers = Publishers(NO_LEADER)

    assert asked(publishers, "classic")
    assert publishers.called == ["basic_qos"]
