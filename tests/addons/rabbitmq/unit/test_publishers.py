"""Publishing to a server that takes no connection."""

from __future__ import annotations

import pytest

from switchyard.addons.rabbitmq.connections import Publishers, parameters_of
from switchyard.broker.errors import BrokerUnavailable


def test_a_publish_without_a_connection_is_known_to_have_done_nothing() -> None:
    publishers = Publishers(parameters_of("amqp://guest:guest@127.0.0.1:1/"))

    with pytest.raises(BrokerUnavailable) as refused:
        publishers.publish("work", b"{}", None, declare=lambda channel: None)

    assert refused.value.outcome == "refused"
