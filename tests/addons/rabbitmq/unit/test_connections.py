"""Errors of connections to RabbitMQ: their next step, and whether they say that quorum queues do not confirm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from socket import gaierror
from typing import Any

import pytest
from django.test import override_settings
from pika.exceptions import (
    AMQPConnectionError,
    AMQPHeartbeatTimeout,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    IncompatibleProtocolError,
)

from switchyard.addons.rabbitmq.connections import (
    NO_RIGHT,
    OWN_CERTIFICATE,
    USUAL,
    RabbitQueues,
    remedy_for,
    unavailable,
)
from switchyard.addons.rabbitmq.majority import confirms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.conf import read

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


@pytest.mark.parametrize("lost", ["SSLError(1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]')", "SSLEOFError(8, 'EOF')"])
def test_a_connection_that_ends_over_tls_may_lack_a_certificate(lost: str) -> None:
    assert remedy_for(IncompatibleProtocolError(f"StreamLostError: {lost}")) == OWN_CERTIFICATE


def test_a_reset_connection_may_lack_tls_or_a_certificate() -> None:
    remedy = remedy_for(IncompatibleProtocolError("StreamLostError: ConnectionResetError(104)"))

    assert "amqps://" in remedy and "certificate" in remedy


def test_a_refused_right_is_told_and_another_closed_channel_is_not() -> None:
    assert remedy_for(ChannelClosedByBroker(403, "ACCESS_REFUSED")) == NO_RIGHT
    assert remedy_for(ChannelClosedByBroker(404, "NOT_FOUND")) == USUAL


def test_the_setting_that_named_the_server_is_said() -> None:
    own = read({"BROKER_URL": "amqp://r:5672/", "REDIS_URL": "redis://v:6390/0"}, {}, debug=True)
    with override_settings(SWITCHYARD=own):
        error = unavailable("a connection", gaierror())

    assert error.remedy == 'correct the host in SWITCHYARD["BROKER_URL"]'
