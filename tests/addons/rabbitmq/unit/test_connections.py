"""Connections to RabbitMQ: what an error says to do next, and frames of a publication, with the bytes of pika."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from socket import gaierror
from typing import Any

import pika
import pytest
from django.test import override_settings
from pika import BlockingConnection
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.connection import Connection
from pika.exceptions import (
    AMQPConnectionError,
    AMQPHeartbeatTimeout,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    IncompatibleProtocolError,
)
from pika.spec import Basic

from switchyard.addons.rabbitmq.connections import (
    CONTENT_TYPE,
    NO_RIGHT,
    OWN_CERTIFICATE,
    USUAL,
    PublicationFields,
    RabbitConnection,
    RabbitQueues,
    frames_of,
    remedy_for,
    unavailable,
)
from switchyard.addons.rabbitmq.majority import confirms
from switchyard.broker.errors import BrokerUnavailable
from switchyard.conf import read

NO_LEADER = ConnectionClosedByBroker(541, "INTERNAL_ERROR - Cannot get a message from queue: nodedown")
LONGEST_BODY = 131_064


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


def test_a_queue_that_elects_a_leader_confirms():
    assert asked(Publishers(NO_LEADER, NO_LEADER, None))


@pytest.mark.parametrize("error", [NO_LEADER, AMQPHeartbeatTimeout("no answer within 1.5 s")])
def test_a_queue_that_never_answers_confirms_nothing(error):
    assert not asked(Publishers(error))


def test_a_server_without_a_connection_is_unavailable():
    with pytest.raises(BrokerUnavailable, match="AMQPConnectionError"):
        asked(Publishers(refused=AMQPConnectionError()))


def test_a_user_without_a_right_to_the_queue_proves_nothing():
    assert asked(Publishers(ChannelClosedByBroker(403, "ACCESS_REFUSED")))


def test_a_user_without_a_right_is_told_which_command_gives_it():
    refused = unavailable("a publish", ChannelClosedByBroker(403, "ACCESS_REFUSED - access to exchange 'amq.default'"))

    assert "rabbitmqctl set_permissions" in str(refused)
    assert "is up" not in str(refused)


def test_classic_queues_are_asked_nothing():
    publishers = Publishers(NO_LEADER)

    assert asked(publishers, "classic")
    assert publishers.called == ["basic_qos"]


@pytest.mark.parametrize("lost", ["SSLError(1, '[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]')", "SSLEOFError(8, 'EOF')"])
def test_a_connection_that_ends_over_tls_may_lack_a_certificate(lost):
    assert remedy_for(IncompatibleProtocolError(f"StreamLostError: {lost}")) == OWN_CERTIFICATE


def test_a_reset_connection_may_lack_tls_or_a_certificate():
    remedy = remedy_for(IncompatibleProtocolError("StreamLostError: ConnectionResetError(104)"))

    assert "amqps://" in remedy and "certificate" in remedy


def test_a_refused_right_is_told_and_another_closed_channel_is_not():
    assert remedy_for(ChannelClosedByBroker(403, "ACCESS_REFUSED")) == NO_RIGHT
    assert remedy_for(ChannelClosedByBroker(404, "NOT_FOUND")) == USUAL


def test_the_setting_that_named_the_server_is_said():
    own = read({"BROKER_URL": "amqp://r:5672/", "REDIS_URL": "redis://v:6390/0"}, {}, debug=True)
    with override_settings(SWITCHYARD=own):
        error = unavailable("a connection", gaierror())

    assert error.remedy == 'correct the host in SWITCHYARD["BROKER_URL"]'


class Written(RabbitConnection):
    """A connection that keeps its writes."""

    def __init__(self) -> None:  # without pika's own: it would connect
        self.writes: list[list[bytes]] = []
        self._body_max_length = LONGEST_BODY

    def _output_marshaled_frames(self, marshaled_frames: Any) -> None:
        self.writes.append(marshaled_frames)


def publish(send: Any, fields: pika.BasicProperties, body: bytes) -> list[bytes]:
    connection = Written()
    send(
        connection, 7, Basic.Publish(exchange="", routing_key="switchyard.urgent.high", mandatory=True), (fields, body)
    )
    (frames,) = connection.writes
    return frames


@pytest.mark.parametrize("message_id", ["m", "0d2e4d6b-1f0a-4d39-9a7e-0c5f3d1b2a4c", "ü" * 100, "x" * 255])
@pytest.mark.parametrize("body", [b"{}", b"x" * LONGEST_BODY])
def test_a_publication_has_the_bytes_of_pika_in_one_piece(message_id, body):
    ours = PublicationFields(message_id)
    pikas = pika.BasicProperties(
        delivery_mode=2, content_type=CONTENT_TYPE, message_id=message_id, correlation_id=ours.correlation_id
    )

    frames = publish(RabbitConnection._send_message, ours, body)

    assert frames == [b"".join(publish(Connection._send_message, pikas, body))]
    assert frames == [frames_of(7, "switchyard.urgent.high", ours, body)]


@pytest.mark.parametrize("body", [b"", b"x" * (LONGEST_BODY + 1)])
def test_a_body_of_no_frame_or_of_several_goes_the_way_of_pika(body):
    fields = PublicationFields("m")

    assert publish(RabbitConnection._send_message, fields, body) == publish(Connection._send_message, fields, body)
    assert len(publish(RabbitConnection._send_message, fields, body)) == 2 + 2 * bool(body)


def test_properties_of_others_go_the_way_of_pika():
    fields = pika.BasicProperties(reply_to="someone")

    assert publish(RabbitConnection._send_message, fields, b"{}") == publish(Connection._send_message, fields, b"{}")


def test_timers_of_a_connection():
    assert "self._impl = " in inspect.getsource(BlockingConnection.__init__)
    assert list(inspect.signature(Connection._adapter_call_later).parameters) == ["self", "delay", "callback"]
    assert list(inspect.signature(Connection._adapter_remove_timeout).parameters) == ["self", "timeout_id"]
    assert list(inspect.signature(Connection._terminate_stream).parameters) == ["self", "error"]


def test_frames_of_a_connection():
    parameters = list(inspect.signature(Connection._send_message).parameters)
    assert parameters == ["self", "channel_number", "method_frame", "content"]
    assert list(inspect.signature(Connection._process_frame).parameters) == ["self", "frame_value"]
    assert list(inspect.signature(Connection._output_marshaled_frames).parameters) == ["self", "marshaled_frames"]
    assert "self._body_max_length" in inspect.getsource(Connection._send_message)
    source = inspect.getsource(Connection._process_frame)
    assert "self.frames_received += 1" in source
    assert "self._deliver_frame_to_channel(frame_value)" in source


def test_cancellation_of_a_consumer():
    assert "self._impl = " in inspect.getsource(BlockingChannel.__init__)
    parameters = inspect.signature(Channel._send_method).parameters
    assert list(parameters) == ["self", "method", "content"] and parameters["content"].default is None
    assert "self._cancelled.add(consumer_tag)" in inspect.getsource(Channel.basic_cancel)
