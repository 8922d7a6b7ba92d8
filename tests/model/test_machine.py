"""The invariants and promises hold whatever happens to a queue family, on Valkey and Redis; each defect is found."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, Grant, Lease, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from tests.chaos.server import ServerUnderTest, server_binary
from tests.model.limited_walk import walk
from tests.model.machine import run
from tests.model.model import Crashes
from tests.model.scripts import DEFECTS, Change, ChangeDoesNotApply, Scripts, lua
from tests.model.steps import bench_on

ADMITTED = "if limits and not limits.admit(id, body, level, lane, ARGV[1]) then"
PUT_OFF = "put_off_to(by_actor, body, id, now, KEYS[15])"
DEFECTS_OF_LIMITS = (
    lua("a place that is left goes to nobody", "include/limits",
        "    for key in pairs(has) do own.pass_on(key) end\n    return not blocked", "    return not blocked"),
    lua("a cancelled message keeps its place", "queue/cancel",
        "--@include limits\n", "local function limits_of() return { free = function() end } end\n"),
    lua("a place is freed that its heir has", "queue/reclaim",
        "limits_of(KEYS[3]).hand_over, id, keeper", "limits_of(KEYS[3]).free, { id }, false"),
    lua("one place more is passed on", "include/limits",
        "elseif full(wait.keys[wait.at]) then", "elseif count(key) > wait.keys[wait.at].n then"),
    lua("a line drops its entry", "include/fair", '    redis.call("ZADD", lines, unpack(members))\n'),
    lua("free places go to the last one first", "include/limits",
        'if not after or redis.call("LINSERT", list, "AFTER", after, id) < 1 then redis.call("LPUSH", list, id) end',
        'redis.call("LPUSH", list, id)'),
    lua("one that is made due leaves its line", "queue/due_now", "< LAST_PUT_OFF", "< 0"),
    lua("a tenant is not charged", "include/fair", "line.served = line.served + 1\n"),
    lua("a pause comes before the sequence", "queue/fetch",
        ADMITTED, f"if not (by_actor and {PUT_OFF}) and {ADMITTED[3:]}"),
    lua("new limits empty the lines", "queue/declare_limits", 'string.format("(%d", LINES)', "LAST_PUT_OFF"),
    lua("one whose key has changed stays first", "include/limits",
        "local stays = not wait", "local stays = true", rare=True),
    lua("a later one overtakes", "include/limits", "first and first ~= mine", "false", rare=True),
    lua("a retry loses its sequence", "include/limits", "if not ended and keeps_order(key) then", "if false then"),
    lua("a retry waits with its place", "queue/move", "free_places(KEYS[1], { id }, false)\n"),
    lua("a dead letter keeps its sequence", "queue/dead_letter", "{ id }, true)", "{ id }, false)"),
    lua("nobody is told of the next one", "include/limits",
        'if not rung[bell] and redis.call("LLEN", bell) == 0 then redis.call("RPUSH", bell, 1) end'),
    lua("a member ends unnoted", "queue/dead_letter",
        'note_end(id, "failed", string.sub(KEYS[1], 1, -7) .. "ends")\n', rare=True),
)  # fmt: skip
IDS = ["a", "b"]
OWNERS = ["w0/live", "w1/live"]
# Next step: an id is pushed by hand, an owner fetches, or an owner finishes a message that it holds.
pushes = st.tuples(st.just("push"), st.integers(0, len(IDS) - 1))
fetches = st.tuples(st.just("fetch"), st.integers(0, len(OWNERS) - 1))
ways_to_end = ["ack", "divert", "fetch and ack", "reclaim as finished", "release", "dead_letter"]
ends = st.tuples(st.sampled_from(ways_to_end), st.integers(0, 3))


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("examples", [200, pytest.param(1_000, marks=pytest.mark.long)])
def test_the_invariants_hold_and_every_state_is_visited(server, examples):
    bench = bench_on(server, Scripts())

    run(bench, examples)

    print(bench.coverage.table())
    bench.coverage.check()


@pytest.mark.parametrize(
    "crashes",
    [
        Crashes(5, cause="alone"),
        Crashes(5, (5, 9), "killed by SIGSEGV"),
        Crashes(5, (5,), "alone", ()),
        Crashes(7, (), "alone", ((8, "host-a"), (9, "host-b"))),
    ],
)
def test_crashes_are_read_as_they_were_written(crashes):
    assert Crashes.of_note(str(crashes)) == crashes


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory) -> Iterator[ServerUnderTest]:
    """One server for all: each example begins with an empty one."""
    with ServerUnderTest(tmp_path_factory.mktemp("defects"), server_binary("valkey-server")) as server:
        yield server


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "defect",
    [
        pytest.param(defect, id=defect.name, marks=[pytest.mark.long] if defect.rare or number % 6 else [])
        for number, defect in enumerate(DEFECTS)
    ],
)
def test_a_seeded_defect_is_found(valkey_server, defect):
    bench = bench_on(valkey_server, Scripts(defect.changes), defect.family)

    with pytest.raises(AssertionError):
        run(bench, examples=1000)


def test_at_least_nine_defects_are_seeded():
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= 9


@pytest.mark.parametrize("old", ["no such text", "redis.call"])
def test_a_change_that_does_not_apply_is_an_error(old):
    with pytest.raises(ChangeDoesNotApply):
        Scripts([Change("queue/dead_letter", old, "")])


def test_the_promises_hold_on_each_server(server):
    walk(bench_on(server, Scripts()), examples=120)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_promises_hold_in_thousands_of_examples(server):
    assert min(walk(bench_on(server, Scripts()), examples=3000).values()) > 100


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "defect",
    [
        pytest.param(one, id=one.name, marks=[pytest.mark.long] if one.rare or number % 4 else [])
        for number, one in enumerate(DEFECTS_OF_LIMITS)
    ],
)
def test_a_seeded_defect_of_limits_is_found(valkey_server, defect):
    bench = bench_on(valkey_server, Scripts(defect.changes))

    with pytest.raises(AssertionError):
        walk(bench, examples=5000)


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


def test_no_id_is_completed_twice_whoever_pushes_it_again(server):
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


def test_an_id_that_is_done_is_not_handed_out_again(server):
    family = QueueOperations(RedisCalls(server.admin), Keys("twice").queue("q"))
    family.join("w/live")
    family.enqueue([Entry(id_, b"body") for id_ in IDS])
    first = family.fetch("w/live", 10, request=1)
    family.ack("w/live", [grant.lease for grant in first.grants])

    family.calls.command("RPUSH", family.keys.waiting("live")[1], *IDS, *IDS)  # by hand, twice
    second = family.fetch("w/live", 10, request=2)

    assert (len(first.grants), second.grants, family.held("w/live")) == (len(IDS), [], [])


def test_a_replayed_script_of_every_kind_completes_nothing_twice(server):
    """Every call of a run is sent again, later and out of order, as a proxy or a person with a log might."""
    wire, keys = RedisCalls(server.admin), Keys("twice").queue("q")
    family = QueueOperations(wire, keys)
    sent: list[tuple[object, ...]] = []

    def noted(*call: Any, **options: Any) -> Any:
        sent.append(call)
        return RedisCalls.call(wire, *call, **options)

    with mock.patch.object(wire, "call", side_effect=noted):
        family.join("w/live")
        family.enqueue([Entry(id_, b"body") for id_ in IDS])
        grants = family.fetch("w/live", 10, request=1).grants
        family.ack("w/live", [grants[0].lease])
        family.move(grants[1].lease, move="divert", lane="live", body=b"again", delay_ms=0)
        family.ack("w/live", [grant.lease for grant in family.fetch("w/live", 10, request=2).grants])
        family.enqueue([Entry("c", b"body")])
        (last,) = family.fetch("w/live", 1, request=3).grants
        family.dead_letter(last.lease, b"{}")
    ended = [wire.command("HGETALL", name) for name in keys.done]

    for call in [*sent, *reversed(sent)]:
        RedisCalls.call(wire, *call)

    assert [wire.command("HGETALL", name) for name in keys.done] == ended
    assert not family.held("w/live")
    assert wire.command("EXISTS", keys.bodies, *keys.waiting("live")) == 0
    assert wire.command("LRANGE", keys.dead, 0, -1) == [last.lease.id]
