"""An id that is delivered twice, because it was pushed into a lane by hand, is completed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchyard.broker.keys import Keys, QueueKeys
from switchyard.broker.queue.operations import Entry, Grant, Lease, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from tests.chaos.server import ServerUnderTest

IDS = ["a", "b"]
OWNERS = ["w0/live", "w1/live"]
# Next step: an id is pushed by hand, an owner fetches, or an owner finishes a message that it holds.
pushes = st.tuples(st.just("push"), st.integers(0, len(IDS) - 1))
fetches = st.tuples(st.just("fetch"), st.integers(0, len(OWNERS) - 1))
ways_to_end = ["ack", "divert", "fetch and ack", "reclaim as finished", "release", "dead_letter"]
ends = st.tuples(st.sampled_from(ways_to_end), st.integers(0, 3))


class Workers:
    """Two workers, what they hold in their own opinion, and what the broker took as completed."""

    def __init__(self, family: QueueOperations) -> None:
        self.family = family
        self.requests = 0
        self.held: list[Grant] = []
        self.completed: Counter[bytes] = Counter()
        for owner in OWNERS:
            family.join(owner)

    def fetch(self, owner: str, acked: Sequence[Lease] = ()) -> bool:
        """Fetch two; return whether ``acked`` were taken as completed by it."""
        self.requests += 1
        found = self.family.fetch(owner, 2, request=self.requests, acked=acked)
        self.held += [grant for grant in found.grants if grant.body is not None]
        return not found.stale

    def end(self, how: str, number: int) -> None:
        """Finish a message that an owner holds, with or without success."""
        if not self.held:
            return
        lease = self.held.pop(number % len(self.held)).lease
        completed = False
        match how:
            case "ack":
                completed = not self.family.ack(lease.owner, [lease])
            case "fetch and ack":
                completed = self.fetch(lease.owner, [lease])
            case "reclaim as finished":
                before = self._end_of(lease)
                self.family.reclaim(lease.owner, finished=[lease])
                self.family.join(lease.owner)
                completed = self._end_of(lease) != before
            case "divert":
                self.family.move(lease, move="divert", lane="live", body=b"again", delay_ms=0)
            case "release":
                self.family.release(lease.owner, [lease])
            case "dead_letter":
                self.family.dead_letter(lease, b"{}")
        self.completed[lease.id] += completed

    def _end_of(self, lease: Lease) -> list[bytes | None]:
        return [self.family.calls.command("HGET", name, lease.id) for name in self.family.keys.done]


def test_no_id_is_completed_twice_whoever_pushes_it_again(server: ServerUnderTest) -> None:
    wire, keys = RedisCalls(server.admin), Keys("twice").queue("q")

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.one_of(pushes, fetches, ends), min_size=8, max_size=30))
    def holds(happenings: list[tuple[str, int]]) -> None:
        wire.command("FLUSHDB")
        workers = Workers(QueueOperations(wire, keys))
        workers.family.enqueue([Entry(id_, b"body") for id_ in IDS])
        for what, number in happenings:
            if what == "push":
                wire.command("RPUSH", keys.waiting("live")[1], IDS[number])
            elif what == "fetch":
                workers.fetch(OWNERS[number])
            else:
                workers.end(what, number)
        assert max(workers.completed.values(), default=0) <= 1, workers.completed

    holds()


def test_an_id_that_is_done_is_not_handed_out_again(server: ServerUnderTest) -> None:
    family = QueueOperations(RedisCalls(server.admin), Keys("twice").queue("q"))
    family.join("w/live")
    family.enqueue([Entry(id_, b"body") for id_ in IDS])
    first = family.fetch("w/live", 10, request=1)
    family.ack("w/live", [grant.lease for grant in first.grants])

    push_again(family.calls, family.keys)
    second = family.fetch("w/live", 10, request=2)

    assert len(first.grants) == len(IDS)
    assert not second.grants
    assert not family.held("w/live")


def test_a_replayed_script_of_every_kind_completes_nothing_twice(server: ServerUnderTest) -> None:
    """Every call of a run is sent again, later and out of order, as a proxy or a person with a log might."""
    wire, keys = RedisCalls(server.admin), Keys("twice").queue("q")
    family = QueueOperations(wire, keys)
    sent: list[tuple[object, ...]] = []
    with mock.patch.object(
        wire, "call", side_effect=lambda *a, **kw: (sent.append(a), RedisCalls.call(wire, *a, **kw))[1]
    ):
        family.join("w/live")
        family.enqueue([Entry(id_, b"body") for id_ in IDS])
        grants = family.fetch("w/live", 10, request=1).grants
        family.ack("w/live", [grants[0].lease])
        family.move(grants[1].lease, move="divert", lane="live", body=b"again", delay_ms=0)
        again = family.fetch("w/live", 10, request=2).grants
        family.ack("w/live", [grant.lease for grant in again])
        family.enqueue([Entry("c", b"body")])
        (last,) = family.fetch("w/live", 1, request=3).grants
        family.dead_letter(last.lease, b"{}")
    ended = [wire.command("HGETALL", name) for name in keys.done]

    for call in [*sent, *reversed(sent)]:
        RedisCalls.call(wire, *call)  # type: ignore[arg-type]

    assert [wire.command("HGETALL", name) for name in keys.done] == ended
    assert not family.held("w/live")
    assert wire.command("EXISTS", keys.bodies, *keys.waiting("live")) == 0
    assert wire.command("LRANGE", keys.dead, 0, -1) == [last.lease.id]


def push_again(wire: RedisCalls, keys: QueueKeys) -> None:
    """Put every id into the lane by hand, twice."""
    wire.command("RPUSH", keys.waiting("live")[1], *IDS, *IDS)
