"""Ports: exactly the one that was asked for, or the next that is free."""

from __future__ import annotations

import pytest

from demo import ports
from demo.errors import PortTaken


def test_port_that_is_taken_is_refused_with_the_way_out() -> None:
    with ports.listen(0) as taken, pytest.raises(PortTaken, match="--port"):
        ports.listen(ports.port_of(taken))


def test_next_free_port_follows_one_that_is_taken() -> None:
    with ports.listen(0) as taken:
        first = ports.port_of(taken)

        with ports.listen_near(first) as found:
            assert first < ports.port_of(found) <= first + ports.NEXT_PORTS


def test_port_of_last_time_is_taken_again_where_it_is_free() -> None:
    with ports.listen(0) as last:
        port = ports.port_of(last)
    with ports.listen_again(port) as again, ports.listen_again(port) as other:
        assert ports.port_of(again) == port
        assert ports.port_of(other) != port


def test_port_for_a_server_that_chooses_itself_is_zero_when_taken() -> None:
    with ports.listen(0) as taken:
        port = ports.port_of(taken)

        assert ports.free_again(port) == 0
    assert ports.free_again(port) == port
    assert ports.free_again(0) == 0
