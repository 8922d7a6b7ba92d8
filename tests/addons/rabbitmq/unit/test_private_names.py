"""Private names of pika still mean what the add-on takes them to mean, see docs/addons/rabbitmq.md."""

from __future__ import annotations

import inspect

from pika import BlockingConnection
from pika.adapters.blocking_connection import BlockingChannel
from pika.channel import Channel
from pika.connection import Connection


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
