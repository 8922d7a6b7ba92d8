"""Frames of a publication: the bytes of pika, in one write; and its private names that the add-on relies on."""

from __future__ import annotations

import inspect
from typing import Any

import pika
import pytest
from pika import BlockingConnection
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.connection import Connection
from pika.spec import Basic

from switchyard.addons.rabbitmq.connections import CONTENT_TYPE, PublicationFields, RabbitConnection, frames_of

LONGEST_BODY = 131_064


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
def test_a_publication_has_the_bytes_of_pika_in_one_piece(message_id: str, body: bytes) -> None:
    ours = PublicationFields(message_id)
    pikas = pika.BasicProperties(
        delivery_mode=2, content_type=CONTENT_TYPE, message_id=message_id, correlation_id=ours.correlation_id
    )

    frames = publish(RabbitConnection._send_message, ours, body)

    assert frames == [b"".join(publish(Connection._send_message, pikas, body))]
    assert frames == [frames_of(7, "switchyard.urgent.high", ours, body)]


@pytest.mark.parametrize("body", [b"", b"x" * (LONGEST_BODY + 1)])
def test_a_body_of_no_frame_or_of_several_goes_the_way_of_pika(body: bytes) -> None:
    fields = PublicationFields("m")

    assert publish(RabbitConnection._send_message, fields, body) == publish(Connection._send_message, fields, body)
    assert len(publish(RabbitConnection._send_message, fields, body)) == 2 + 2 * bool(body)


def test_properties_of_others_go_the_way_of_pika() -> None:
    fields = pika.BasicProperties(reply_to="someone")

    assert publish(RabbitConnection._send_message, fields, b"{}") == publish(Connection._send_message, fields, b"{}")


def test_timers_of_a_connection() -> None:
    assert "self._impl = " in inspect.getsource(BlockingConnection.__init__)
    assert list(inspect.signature(Connection._adapter_call_later).parameters) == ["self", "delay", "callback"]
    assert list(inspect.signature(Connection._adapter_remove_timeout).parameters) == ["self", "timeout_id"]
    assert list(inspect.signature(Connection._terminate_stream).parameters) == ["self", "error"]


def test_frames_of_a_connection() -> None:
    parameters = list(inspect.signature(Connection._send_message).parameters)
    assert parameters == ["self", "channel_number", "method_frame", "content"]
    assert list(inspect.signature(Connection._process_frame).parameters) == ["self", "frame_value"]
    assert list(inspect.signature(Connection._output_marshaled_frames).parameters) == ["self", "marshaled_frames"]
    assert "self._body_max_length" in inspect.getsource(Connection._send_message)
    source = inspect.getsource(Connection._process_frame)
    assert "self.frames_received += 1" in source
    assert "self._deliver_frame_to_channel(frame_value)" in source


def test_cancellation_of_a_consumer() -> None:
    assert "self._impl = " in inspect.getsource(BlockingChannel.__init__)
    parameters = inspect.signature(Channel._send_method).parameters
    assert list(parameters) == ["self", "method", "content"] and parameters["content"].default is None
    assert "self._cancelled.add(consumer_tag)" in inspect.getsource(Channel.basic_cancel)
