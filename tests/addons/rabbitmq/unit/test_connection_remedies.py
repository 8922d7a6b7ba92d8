"""Next step of an error of a connection to RabbitMQ."""

from __future__ import annotations

from socket import gaierror

import pytest
from django.test import override_settings
from pika.exceptions import ChannelClosedByBroker, IncompatibleProtocolError

from switchyard.addons.rabbitmq.connections import NO_RIGHT, OWN_CERTIFICATE, USUAL, remedy_for, unavailable
from switchyard.conf import read


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
