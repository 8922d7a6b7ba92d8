"""Cancelled running jobs that a supervisor has polled, and the signals that it sends to their child."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.workers.shared.child_table import Running
from switchyard.workers.supervisor.children import END_AFTER_S, INTERRUPT_AFTER_S, POLL_AGAIN_S, CancellationWatch

S = 1_000_000_000


class Clock:
    """Time that a test moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ns = 1_000 * S
        monkeypatch.setattr("switchyard.workers.supervisor.children.time.monotonic", lambda: self.ns / S)
        monkeypatch.setattr("switchyard.workers.supervisor.children.time.monotonic_ns", lambda: self.ns)

    def pass_s(self, seconds: float) -> None:
        self.ns += int(seconds * S)


class Server:
    """Server that returns the jobs with a cancellation request."""

    def __init__(self) -> None:
        self.asked: set[bytes] = set()
        self.looks = 0
        self.away = False

    def look(self, running: Mapping[int, Sequence[Running]]) -> set[tuple[int, Running]]:
        self.looks += 1
        if self.away:
            raise BrokerUnavailable("HMGET", "away")
        return {(place, ran) for place, messages in running.items() for ran in messages if ran.id in self.asked}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time that the test moves on."""
    return Clock(monkeypatch)


@pytest.fixture
def server() -> Server:
    """A server that was asked for nothing."""
    return Server()


def running(id_: bytes, clock: Clock, *, limit_s: float = 60.0) -> Running:
    """Return a message that starts now."""
    return Running(lane=0, id=id_, token=1, start_ns=clock.ns, limit_ns=int(limit_s * S))


def test_who_was_asked_has_so_long_to_end_by_itself_and_its_own_limit_goes_first(clock: Clock, server: Server) -> None:
    stops, long, short = CancellationWatch(server.look), running(b"long", clock), running(b"short", clock, limit_s=2)
    server.asked = {b"long", b"short"}

    stops.update({1: [long, short]})

    assert stops.is_cancelled(1, long)
    assert stops.over_at_ns(1, long) == clock.ns + END_AFTER_S * S
    assert stops.over_at_ns(1, short) == short.start_ns + 2 * S
    assert stops.over_at_ns(2, long) == long.start_ns + 60 * S


def test_it_is_interrupted_once_when_it_had_the_time_to_hear_of_it(clock: Clock, server: Server) -> None:
    stops, ran = CancellationWatch(server.look), running(b"a", clock)
    server.asked = {b"a"}
    stops.update({1: [ran]})

    early = stops.to_interrupt()
    clock.pass_s(INTERRUPT_AFTER_S)

    assert early == []
    assert stops.to_interrupt() == [(1, ran)]
    assert stops.to_interrupt() == []


def test_it_is_looked_four_times_a_second_while_something_runs(clock: Clock, server: Server) -> None:
    stops, ran = CancellationWatch(server.look), running(b"a", clock)

    stops.update({1: []})
    idle = server.looks
    for _ in range(100):
        stops.update({1: [ran]})
        clock.pass_s(0.01)

    assert idle == 0
    assert 4 <= server.looks <= 5


def test_a_server_that_is_away_is_asked_once_a_second_and_forgets_nobody(clock: Clock, server: Server) -> None:
    stops, ran = CancellationWatch(server.look), running(b"a", clock)
    server.asked = {b"a"}
    stops.update({1: [ran]})
    over_at_ns = stops.over_at_ns(1, ran)
    server.away = True
    clock.pass_s(0.5)

    assert stops.update({1: [ran]}) == pytest.approx(POLL_AGAIN_S)
    assert stops.over_at_ns(1, ran) == over_at_ns


def test_who_ended_is_forgotten(clock: Clock, server: Server) -> None:
    stops, ran = CancellationWatch(server.look), running(b"a", clock)
    server.asked = {b"a"}
    stops.update({1: [ran]})

    stops.update({1: []})

    assert not stops.is_cancelled(1, ran)
    clock.pass_s(INTERRUPT_AFTER_S)
    assert stops.to_interrupt() == []
