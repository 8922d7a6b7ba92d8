"""Next step of an error of a connection to RabbitMQ."""

from __future__ import annotations

import pytest
from pika.exceptions import ChannelClosedByBroker, IncompatibleProtocolError

from switchyard.addons.rabbitmq.connections import NO_RIGHT, OWN_CERTIFICATE, USUAL, remedy_for


@pytest.mark.parametrize("lost", ["SSLError(1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]')", "SSLEOFError(8, 'EOF')"])
def test_a_connection_that_ends_over_tls_may_lack_a_certificate(lost: str) -> None:
    assert remedy_for(IncompatibleProtocolError(f"StreamLostError: {lost}")) == OWN_CERTIFICATE


def test_a_reset_connection_may_lack_tls_or_a_certificate() -> None:
    remedy = remedy_for(IncompatibleProtocolError("StreamLostError: ConnectionResetError(104)"))

    assert "amqps://" in remedy and "certificate" in remedy


def test_a_refused_right_is_told_and_another_closed_channel_is_not() -> None:
    assert remedy_for(ChannelClosedByBroker(403, "ACCESS_REFUSED")) == NO_RIGHT
    assert remedy_for(ChannelClosedByBroker(404, "NOT_FOUND")) == USUAL
