"""The state machine: draws operations, runs each on a real server and on the model, and checks all after each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from broker.clients import connect
from broker.errors import BrokerUnavailable, BrokerUnsafe, QueueFull
from broker.family import LEASE_MS, NORMAL, SWEEP_GAP_MS, Family, lane_of
from broker.family_keys import ALL_LANES, LANES, Lane
from broker.grants import Entry, Fetched, Lease
from broker.keys import Keys
from broker.parked import ParkedLane
from broker.wire import Wire
from tests.chaos.server import ServerUnderTest
from tests.model import invariants
from tests.model.coverage import Coverage
from tests.model.keyspace import ACTIVE, DEAD, NOWHERE, WAITING, Keyspace, read
from tests.model.model import LEVELS, Full, Message, Model
from tests.model.scripts import CLOCK_KEY, Scripts, script_of

T = TypeVar("T")

# Far ahead, so that nothing which the scripts let expire does so by the server's own clock.
START_MS = 4_102_444_800_000
CRASH_LIMIT = 3
CALL = '["actor", 0, []]'
IDS = [f"m{n}" for n in range(6)]
STRAYS = ["stray0", "stray1"]
SET_CLOCK = script_of("set clock", "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], ARGV[1])")

ids = st.sampled_from(IDS)
lanes = st.sampled_from(["live", "live", "retry"])
consumed = st.sampled_from(["live", "live", "retry", "alone"])
levels = st.sampled_from([2, 2, 1, 3])
delays = st.sampled_from([0, 0, 1, 700, 5_000, 40_000])


@dataclass(frozen=True)
class Pick:
    """Which lease to use: the latest is 0; of those that are held if there are any, or of all that ever were."""

    held: bool
    back: int


picks = st.builds(Pick, held=st.booleans(), back=st.integers(0, 15))
few_picks = st.lists(picks, max_size=3)
# The latest is 0; those without a lease come last.
owners_back = st.integers(0, 5)
nonces = st.sampled_from(["n0", "n1", "n2"])
again = st.booleans()


@dataclass(frozen=True)
class Reclaim:
    """What a reclaim is told; see :meth:`broker.family.Family.reclaim`."""

    only_lapsed: bool = False
    finished: Sequence[Lease] = ()
    running: Sequence[str] = ()
    cause: str = ""
    keeper: str = ""


@dataclass
class Bench:
    """A server, the operations under test on it, and what a run has visited."""

    server: ServerUnderTest
    family: Family
    scripts: Scripts
    coverage: Coverage


def bench_on(server: ServerUnderTest, scripts: Scripts, family_class: Callable[[Wire, Any], Family] = Family) -> Bench:
    """Return a bench on a running server."""
    family = family_class(Wire(connect(server.url)), Keys("model").family("q"))
    return Bench(server, family, scripts, Coverage())


def run(bench: Bench, examples: int, steps: int = 50, *, shrink: bool = False) -> None:
    """Run the machine, the same examples each time.

    Args:
        shrink: Look for the shortest example that fails. Takes minutes, so it is for whoever looks for the cause.

    Raises:
        AssertionError: the broker did what it must not do.
    """
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with mock.patch("broker.family.script", bench.scripts), mock.patch("broker.parked.script", bench.scripts):
        run_state_machine_as_test(lambda: FamilyMachine(bench), settings=chosen)


class FamilyMachine(RuleBasedStateMachine):
    """One family, its consumers, its operators, and what befalls its server."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench, self.family = bench, bench.family
        self.model = Model(START_MS)
        self.owners: list[str] = []
        self.requests: dict[str, int] = {}
        self.grants: list[Lease] = []  # every one ever given
        self.drawn = 0
        self.full = self.unsafe = self.broken = False
        self.visited: set[str] = set()
        self.family.wire.command("FLUSHDB")
        self._set_clock()
        self.found = self._read()
        self.running: set[str] = set()  # what the reclaim that runs is told to have been running
        owners = [self._join(lane) for lane in ALL_LANES]
        self._enqueue([Entry(IDS[0], self._body(False))], "live")
        self._fetch(owners[0], 1)

    @initialize(count=st.integers(1, 4), lane=lanes, delay_ms=delays, key=st.sampled_from(["", "", "k1"]))
    def stock(self, count: int, lane: Lane, delay_ms: int, key: str) -> None:
        """Have something to begin with, also when this example enqueues nothing."""
        self._enqueue([Entry(id_, self._body(False), key) for id_ in IDS[-count:]], lane, delay_ms=delay_ms)

    # Producers.

    @rule(
        wanted=st.lists(st.tuples(ids, st.sampled_from(["", "k0", "k0", "k1"])), min_size=1, max_size=4),
        lane=lanes,
        delay_ms=delays,
        level=levels,
        limit=st.sampled_from([0, 0, 1, 2, 4]),
        malformed=st.booleans(),
        again=again,
    )
    def enqueue(
        self,
        wanted: list[tuple[str, str]],
        lane: Lane,
        delay_ms: int,
        level: int,
        limit: int,
        malformed: bool,
        again: bool,
    ) -> None:
        entries = [Entry(id_, self._body(malformed), key) for id_, key in wanted]
        self._enqueue(entries, lane, delay_ms=delay_ms, level=level, limit=limit, again=again)

    def _enqueue(
        self,
        entries: Sequence[Entry],
        lane: Lane,
        *,
        delay_ms: int = 0,
        level: int = NORMAL,
        limit: int = 0,
        again: bool = False,
    ) -> None:
        expected: object
        if self.full or self.unsafe:
            expected = "server full" if self.full else "server unsafe"
            self._happened(str(expected))
        else:
            expected = self.model.enqueue(entries, lane, delay_ms, level, limit)
        if isinstance(expected, Full):
            self._happened("queue full")
        elif isinstance(expected, list) and expected != [entry.id for entry in entries]:
            self._happened("unique key")

        def call() -> object:
            try:
                return self.family.enqueue(entries, lane=lane, delay_ms=delay_ms, level=level, limit=limit)
            except QueueFull as error:
                return Full(error.depth)
            except BrokerUnsafe:
                return "server unsafe"
            except BrokerUnavailable:
                # Full; of unknown outcome when it was tried on a connection that a killed server has left.
                if not self.full:
                    raise
                return "server full"

        self._step("enqueue", expected, call, again=again, changes=isinstance(expected, list))

    @rule(stray=st.sampled_from(STRAYS), lane=consumed)
    def stray(self, stray: str, lane: Lane) -> None:
        """Somebody puts an id into a lane by hand, with no body."""
        if self.full or self.model.place(stray) != NOWHERE:
            return
        self.model.stray(stray, lane)

        def call() -> None:
            self.family.wire.command("RPUSH", self.family.keys.waiting(lane)[1], stray)
            self.family.ring(lane)

        self._step("stray", None, call)

    # Consumers.

    @rule(lane=consumed, again=again)
    def join(self, lane: Lane, again: bool) -> None:
        self._join(lane, again=again)

    @rule(
        owner=owners_back,
        count=st.sampled_from([2, 1, 4, 0]),
        acked=few_picks,
        woken=st.booleans(),
        repeated=st.sampled_from([False, False, False, True]),
        again=again,
    )
    def fetch(self, owner: int, count: int, acked: list[Pick], woken: bool, repeated: bool, again: bool) -> None:
        self._fetch(self._owner(owner), count, self._leases(acked), woken=woken, repeated=repeated, again=again)

    @rule(picked=few_picks, impostor=owners_back, wrong_owner=st.sampled_from([False, False, True]), again=again)
    def ack(self, picked: list[Pick], impostor: int, wrong_owner: bool, again: bool) -> None:
        owner, leases = self._of_one_owner(picked, impostor, wrong_owner)
        valid = self._any_valid(owner, leases)
        expected = self.model.ack(owner, leases)
        self._note_late(leases, expected, valid)
        self._step("ack", expected, lambda: self.family.ack(owner, leases), again=again, changes=valid)

    @rule(
        pick=picks, move=st.sampled_from(["divert", "defer"]), lane=consumed, delay_ms=delays, level=levels, again=again
    )
    def move(self, pick: Pick, move: Any, lane: Lane, delay_ms: int, level: int, again: bool) -> None:
        lease, body = self._lease(pick), self._body(False)
        valid = self.model.valid(lease)
        expected = self.model.move(lease, move, lane, body, delay_ms, level)
        self._note_late([lease], [] if expected else [lease], valid)

        def call() -> bool:
            return self.family.move(lease, move=move, lane=lane, body=body, delay_ms=delay_ms, level=level)

        self._step("move", expected, call, again=again, changes=valid)

    @rule(pick=picks, again=again)
    def bury(self, pick: Pick, again: bool) -> None:
        self._bury(self._lease(pick), again=again)

    @rule(pick=picks, what=st.sampled_from(["malformed body", "missing body", "any"]), again=again)
    def quarantine(self, pick: Pick, what: str, again: bool) -> None:
        unreadable = self._lease_unreadable(what) if what != "any" and self.calm else None
        if unreadable:
            self._happened(what)
        self._quarantine(unreadable or self._lease(pick), again=again)

    def _quarantine(self, lease: Lease, *, again: bool) -> None:
        valid = self.model.valid(lease)
        entry = b'{"id": "%s", "token": %s}' % (lease.id, lease.token)
        expected = self.model.quarantine(lease, entry)
        self._step("quarantine", expected, lambda: self.family.quarantine(lease, entry), again=again, changes=valid)

    @rule(picked=few_picks, impostor=owners_back, wrong_owner=st.sampled_from([False, False, True]),
          side=st.sampled_from(["head", "tail"]), again=again)  # fmt: skip
    def release(self, picked: list[Pick], impostor: int, wrong_owner: bool, side: Any, again: bool) -> None:
        owner, leases = self._of_one_owner(picked, impostor, wrong_owner)
        valid = self._any_valid(owner, leases)
        expected = self.model.release(owner, leases, side)
        self._note_late(leases, expected, valid)
        self._step(
            "release", expected, lambda: self.family.release(owner, leases, side=side), again=again, changes=valid
        )

    @rule(pick=picks, again=again)
    def isolate(self, pick: Pick, again: bool) -> None:
        lease = self._lease(pick)
        valid = self.model.valid(lease)
        self._step("isolate", self.model.isolate(lease), lambda: self.family.isolate(lease), again=again, changes=valid)

    @rule(owner=owners_back, count=st.integers(1, 3), level=levels, stay=st.booleans(), again=again)
    def relocate(self, owner: int, count: int, level: int, stay: bool, again: bool) -> None:
        """Waiting messages are moved to another family: taken, put there, forgotten here. Or that ends half-way."""
        name = self._owner(owner)
        free = [id_ for id_ in IDS if self.model.place(id_) == NOWHERE]
        if free and self.calm and lane_of(name) in LANES:
            self._enqueue([Entry(free[0], self._body(False))], lane_of(name), level=level)
        taken = self.model.take(name, count, level)

        def take() -> object:
            try:
                return self.family.take(name, count, level=level)
            except LookupError:
                return None

        self._step("take", taken, take, changes=bool(taken))
        leases = [lease for lease, _ in taken or ()]
        self.grants += leases
        if leases and not stay:
            self.model.forget(name, leases)
            self._step("forget", None, lambda: self.family.forget(name, leases), again=again)

    @rule(owner=owners_back, wanted=st.lists(ids, min_size=1, max_size=3, unique=True), due=st.booleans(), again=again)
    def adopt(self, owner: int, wanted: list[str], due: bool, again: bool) -> None:
        """Parked messages are leased before they are due, as the list says; it may be behind."""
        name = self._owner(owner)
        free = [id_ for id_ in IDS if self.model.place(id_) == NOWHERE]
        if self.full:
            return
        if free and due and self.calm and lane_of(name) in LANES:
            self._enqueue([Entry(free[0], self._body(False))], lane_of(name), delay_ms=5_000)
            wanted = [free[0], *wanted]
        # None that the owner has: it would not ask for them.
        wanted = [id_ for id_ in dict.fromkeys(wanted) if id_ not in {held.id for held in self.model.held_by(name)}]
        parked = ParkedLane(self.family, lane_of(name))
        for id_ in wanted:
            parked.add(id_, CALL)
        self.found = self._read()
        expected = self.model.adopt(name, wanted)

        def call() -> tuple[str, list[Lease]]:
            adopted = parked.adopt(name, CALL, [id_.encode() for id_ in wanted])
            return adopted.state, [grant.lease for grant in adopted.grants]

        self._step("adopt", expected, call, again=again)
        self.grants += expected[1]

    # Their leases.

    @rule(back=st.lists(owners_back, min_size=1, max_size=3), again=again)
    def renew(self, back: list[int], again: bool) -> None:
        owners = [self._owner(number) for number in back]
        expected = self.model.renew(owners)
        if len(expected) < len(owners):
            self._step("renew", expected, lambda: self.family.renew(owners), again=again)
        else:
            self._happened("lost lease")
            self._step("renew", expected, lambda: self.family.renew(owners), again=again, changes=False)

    @rule(ms=st.sampled_from([1, 700, 4_000, 9_000, LEASE_MS + 1, 1_200_000, 300_000_000]))
    def advance(self, ms: int) -> None:
        self.model.advance(ms)
        self._step("advance", None, self._set_clock)

    @rule(wait_ms=st.sampled_from([0, SWEEP_GAP_MS]), again=again)
    def sweep(self, wait_ms: int, again: bool) -> None:
        self._sweep(again=again)
        if wait_ms:
            self.advance(wait_ms)
            self._sweep(again=again)

    @rule(
        owner=owners_back,
        only_lapsed=st.booleans(),
        finished=few_picks,
        running=st.lists(ids, max_size=3, unique=True),
        cause=st.sampled_from(["signal 9", "limit 5 s", ""]),
        keeper=st.none() | owners_back,
        again=again,
    )
    def reclaim(
        self,
        owner: int,
        only_lapsed: bool,
        finished: list[Pick],
        running: list[str],
        cause: str,
        keeper: int | None,
        again: bool,
    ) -> None:
        robbed = self._owner(owner)
        kept_by = "" if keeper is None else self._owner(keeper)
        if kept_by == robbed or (kept_by and lane_of(kept_by) != lane_of(robbed)):
            kept_by = ""
        leases = [lease for lease in self._leases(finished) if lease.owner == robbed]
        what = Reclaim(only_lapsed, leases, running, cause, kept_by)
        if cause.startswith("limit"):
            self._happened("hard limit")
        self._reclaim(robbed, what, again=again)

    # Operators.

    @rule(id_=ids, as_read=st.booleans(), level=levels, nonce=nonces, again=again)
    def requeue(self, id_: str, as_read: bool, level: int, nonce: str, again: bool) -> None:
        if self.model.dead and self.model.place(id_) != DEAD:
            id_ = self.model.dead[0]
        self._requeue(id_, as_read=as_read, level=level, nonce=nonce, again=again)

    @rule(id_=ids, nonce=nonces, again=again)
    def discard(self, id_: str, nonce: str, again: bool) -> None:
        dead = self.model.place(id_) == DEAD
        expected = self.model.discard(id_, nonce)
        self._step("discard", expected, lambda: self.family.discard(id_, nonce=nonce), again=again, changes=dead)

    @rule(id_=ids, running=again, again=again)
    def cancel(self, id_: str, running: bool, again: bool) -> None:
        if running and self._held():
            id_ = str(self._held()[-1].id, "ascii")
        expected = self.model.cancel(id_)
        if expected == "asked":
            self._happened("asked to stop")
        self._step("cancel", expected, lambda: self.family.cancel(id_), again=again, changes=expected != "unknown")

    @rule(what=st.sampled_from(["pause", "resume", "pause", "resume", "flush"]))
    def operate(self, what: str) -> None:
        if what == "flush":
            if self.calm:
                self._begin_work()
            self.model.flush()
            self._step("flush", None, self.family.flush, again=True)
        elif what == "pause":
            self._step("pause", self.model.pause(), self.family.pause)
            self._fetch(self._living("live"), 1, woken=True)
        else:
            self._step("resume", self.model.resume(), self.family.resume)

    # What befalls a server.

    @rule(
        what=st.sampled_from(["lose scripts", "fill", "make room", "refuse", "allow", "kill"]), dice=st.integers(0, 4)
    )
    def befall(self, what: str, dice: int) -> None:
        server, refused = self.bench.server, self.family.keys.refused
        if what == "lose scripts":
            self._happened("scripts flushed")
            self._step(what, b"OK", partial(self.family.wire.command, "SCRIPT", "FLUSH"), changes=False)
        elif what in ("fill", "make room"):
            self.full = what == "fill"
            self._step(what, None, server.fill if self.full else server.make_room, changes=False)
            if self.full:
                self._enqueue([Entry(IDS[dice], b"too much")], "live")
        elif what == "refuse" and not self.full:  # whoever watches the server found that it evicts
            self.unsafe = True
            self._step(what, b"OK", partial(self.family.wire.command, "SET", refused, "it evicts"))
        elif what == "allow" and self.unsafe:
            self.unsafe = False
            self._step(what, 1, partial(self.family.wire.command, "DEL", refused))
        elif what == "kill" and dice == 3:  # seldom: it takes long
            # While a busy disk still syncs, a server puts off its writes by up to two seconds, and a kill loses them:
            # that is the window of `everysec`. Here what was answered is to be there again.
            server.config_set("appendfsync", "always")
            self.full = False
            self._happened("server killed")
            self._step(what, None, server.restart, changes=False)

    # Ways into rare states, which a random walk seldom finds.

    @precondition(lambda self: self.calm)
    @rule(
        id_=ids, count=st.integers(1, CRASH_LIMIT + 1), cause=st.sampled_from(["signal 11", "signal 11", "limit 5 s"])
    )
    def crash_loop(self, id_: str, count: int, cause: str) -> None:
        """A message takes its worker down, again and again, until it is buried at the limit."""
        if self.model.place(id_) == NOWHERE:
            self._enqueue([Entry(id_, self._body(False))], "live", level=1)
        for _ in range(count):
            held = self._drive_to_active(id_)
            if held is None:
                return
            if held.crash_count >= CRASH_LIMIT:
                self._happened("crash limit")
                self._bury(held.lease)
                return
            self._reclaim(held.owner, Reclaim(running=[id_], cause=cause))

    @precondition(lambda self: self.calm)
    @rule(id_=ids, end=st.sampled_from(["requeue", "discard", "quarantine", "keep"]), again=again)
    def die(self, id_: str, end: str, again: bool) -> None:
        if self.model.place(id_) == NOWHERE:
            self._enqueue([Entry(id_, self._body(False))], "live")
        held = self._drive_to_active(id_)
        if held is not None and end == "quarantine":
            self._quarantine(held.lease, again=again)
        elif held is not None:
            self._bury(held.lease, again=again)
        if end == "requeue":
            self._requeue(id_, as_read=True, level=2, nonce="n0", again=again)
        elif end == "discard":
            self.discard(id_, "n0", again)

    @precondition(lambda self: self.calm)
    @rule(id_=ids, spare=st.booleans(), again=again)
    def keep_suspect(self, id_: str, spare: bool, again: bool) -> None:
        """A worker dies; another one of its pool gets what ran. ``spare`` says whether that one lives itself."""
        held = self._drive_to_active(id_)
        if held is None:
            return
        lane = lane_of(held.owner)
        keeper = self._join(lane)
        if not spare:
            self._happened("keeper gone")
            self._reclaim(keeper, Reclaim())
        self._reclaim(held.owner, Reclaim(running=[id_], cause="signal 11", keeper=keeper), again=again)

    @precondition(lambda self: self.calm)
    @rule(id_=ids, how=st.sampled_from(["ack", "move", "bury", "release"]), again=again)
    def come_late(self, id_: str, how: str, again: bool) -> None:
        """A message is leased to the same owner anew; what is done under its old token changes nothing."""
        held = self._drive_to_active(id_)
        if held is None:
            return
        old = held.lease
        self.model.release(old.owner, [old], "head")
        self._step("release", [], lambda: self.family.release(old.owner, [old]))
        self._fetch(old.owner, 10)
        if how == "ack":
            stale = self.model.ack(old.owner, [old])
            self._step(how, stale, lambda: self.family.ack(old.owner, [old]), again=again, changes=False)
        elif how == "move":
            moved = self.model.move(old, "divert", "live", b"late", 0, NORMAL)
            call = partial(self.family.move, old, move="divert", lane="live", body=b"late", delay_ms=0)
            self._step(how, moved, call, again=again, changes=False)
        elif how == "bury":
            self._bury(old, again=again)
        else:
            stale = self.model.release(old.owner, [old], "tail")
            self._step(
                how, stale, lambda: self.family.release(old.owner, [old], side="tail"), again=again, changes=False
            )

    @rule(id_=ids, delay_ms=st.sampled_from([700, 5_000]), again=again)
    def cancel_scheduled(self, id_: str, delay_ms: int, again: bool) -> None:
        if self.model.place(id_) == NOWHERE:
            self._enqueue([Entry(id_, self._body(False))], "live", delay_ms=delay_ms)
            self.cancel(id_, False, again)

    def teardown(self) -> None:
        """From any state, fair repetition of what consumers and sweepers do works everything off."""
        try:
            if not self.broken:
                self._drain()
        finally:
            if self.full:
                self.bench.server.make_room()
        self.bench.coverage.example(self.visited)

    def _drain(self) -> None:
        self.befall("make room", 0)
        self.operate("resume")
        for _ in range(2):  # a gap first, after which all leases start anew
            self.advance(LEASE_MS + 1)
            self._sweep()
        for _ in range(2):
            self.advance(SWEEP_GAP_MS)
            self._sweep()
        owners = [self._join(lane) for lane in ALL_LANES]
        for _ in range(2 * len(IDS) * len(LEVELS)):
            fetched = [self._fetch(owner, 4, woken=True) for owner in owners]
            for found in fetched:
                leases = [grant.lease for grant in found.grants]
                for owner in {lease.owner for lease in leases}:
                    expected = self.model.ack(owner, leases)
                    self._step("ack", expected, lambda o=owner, ls=leases: self.family.ack(o, ls))  # type: ignore[misc]
            due = [found.next_due_ms for found in fetched if found.next_due_ms is not None]
            if not any(found.grants for found in fetched):
                if not due:
                    break
                self.advance(min(due))
        invariants.drained(self.found)

    @property
    def calm(self) -> bool:
        """Whether messages go in and out."""
        return not (self.full or self.unsafe or self.model.paused)

    # One operation, on the server and on the model.

    def _step(
        self, operation: str, expected: T, call: Callable[[], T], *, again: bool = False, changes: bool = True
    ) -> None:
        """Run what the model has done already, and check everything.

        Args:
            again: Its answer is lost and it is repeated.
            changes: It may change something: no token of it is stale, nothing refuses it.
        """
        self.broken = True
        before = self.found
        answer = call()
        self.found = self._read()
        if again:
            self._happened("repeated call")
            repeated = call()
            assert repeated == answer, f"{operation} repeated answered {repeated}, and {answer} before"
            found = self._read()
            assert found.raw == self.found.raw, f"{operation} repeated changed {differences(self.found.raw, found.raw)}"
        assert answer == expected, f"{operation} answered {answer}, not {expected}"
        if not changes:
            assert self.found.raw == before.raw, f"{operation} changed {differences(before.raw, self.found.raw)}"
        self._check(operation, before)
        self.broken = False

    def _check(self, operation: str, before: Keyspace) -> None:
        found, model = self.found, self.model
        bodiless = {m.id for m in model.messages.values() if m.body is None}
        invariants.conserved(found, set(model.messages), bodiless)
        invariants.owned(found)
        invariants.told(found, model.told_due_ms)
        was = {id_: where[0] for id_, where in before.places().items()}
        now = {id_: where[0] for id_, where in found.places().items()}
        invariants.kept(operation, was, now)
        invariants.on_time(operation, before, now, model.now_ms)
        invariants.blamed(operation, before, found, self.running)
        seen, foreseen = found.view(), model.view()
        assert seen == foreseen, f"after {operation} the keys differ from the model: {differences(foreseen, seen)}"
        for id_ in was.keys() | now.keys():
            old, new = was.get(id_, NOWHERE), now.get(id_, NOWHERE)
            moved_on = (
                old == new == ACTIVE and operation == "reclaim" and self._token(before, id_) != self._token(found, id_)
            )
            if old != new or moved_on:
                self.bench.coverage.transition(operation, old, new)
        self.visited |= set(now.values())

    def _join(self, lane: Lane, *, again: bool = False) -> str:
        owner = f"c{len(self.owners)}/{lane}"
        self.owners.append(owner)
        self.model.join(owner)
        self._step("join", None, lambda: self.family.join(owner), again=again)
        return owner

    def _fetch(
        self,
        owner: str,
        count: int,
        acked: Sequence[Lease] = (),
        *,
        woken: bool = False,
        repeated: bool = False,
        again: bool = False,
    ) -> Fetched:
        """Fetch as a consumer does, which was ``woken`` by the bell or not, or ``repeated`` its last request."""
        if repeated:
            self._happened("repeated fetch")
        else:
            self.requests[owner] = self.requests.get(owner, 0) + 1
        request = self.requests.setdefault(owner, 1)
        last_token = self.model.token
        valid = self._any_valid(owner, acked)
        expected = self.model.fetch(owner, count, request, acked)
        if expected.state == "gone":
            self._happened("lost lease")
        if expected.state == "paused":
            self._happened("paused")
        bell = self.family.keys.bell(lane_of(owner))
        if woken:
            self.family.wire.command("LPOP", bell)

        def call() -> Fetched:
            found = self.family.fetch(owner, count, request=request, acked=acked)
            if found.state == "gone" and woken:
                self.family.ring(lane_of(owner))  # for the one that was to be woken in its place
            return found

        self._step("fetch", expected, call, again=again, changes=valid or woken or expected.state == "ok")
        if expected.state == "ok":
            invariants.promoted(self.found, owner, self.model.now_ms)
        for grant in expected.grants:
            if int(grant.lease.token) > last_token:
                self.grants.append(grant.lease)
        return expected

    def _bury(self, lease: Lease, *, again: bool = False) -> None:
        valid = self.model.valid(lease)
        letter = b'{"id": "%s", "token": %s}' % (lease.id, lease.token)
        expected = self.model.bury(lease, letter)
        self._note_late([lease], [] if expected else [lease], valid)
        self._step("bury", expected, lambda: self.family.bury(lease, letter), again=again, changes=valid)

    def _requeue(self, id_: str, *, as_read: bool, level: int, nonce: str, again: bool) -> None:
        dead = self.model.place(id_) == DEAD
        letter = self.model.messages[id_].letter if dead and as_read else b"{}"
        body = self._body(False)
        expected = self.model.requeue(id_, letter, body, level, nonce)

        def call() -> bool:
            return self.family.requeue(id_, as_read=letter, body=body, level=level, nonce=nonce)

        self._step("requeue", expected, call, again=again, changes=dead and as_read)

    def _sweep(self, *, again: bool = False) -> None:
        before = dict(self.model.leases)
        lapsed = self.model.lapsed()
        if not lapsed and before != self.model.leases:
            self._happened("rearmed")
        self._step("lapsed", lapsed, self.family.lapsed, again=again)
        for owner in lapsed:
            self._reclaim(owner, Reclaim(only_lapsed=True))
        invariants.swept(self.found, self.model.now_ms)

    def _reclaim(self, owner: str, what: Reclaim, *, again: bool = False) -> None:
        self.running = set(what.running) & {m.id for m in self.model.held_by(owner)}
        leased = owner in self.model.leases
        expected = self.model.reclaim(owner, **vars(what))
        for suspect in expected.suspects if expected else ():
            if suspect.lease is not None and suspect.lease not in self.grants:
                self.grants.append(suspect.lease)
        call = partial(self.family.reclaim, owner, **vars(what))
        self._step("reclaim", expected, call, changes=leased and expected is not None)
        if again:
            # Who got nothing is told nothing the second time; a keeper is told again what it got.
            self._step("reclaim", self.model.reclaim(owner, **vars(what)), call, changes=False)

    # What the rules draw.

    def _drive_to_active(self, id_: str) -> Message | None:
        """Have a message that waits or is due leased by somebody; ``None`` when it cannot be."""
        message = self.model.messages.get(id_)
        if message is None or message.cancelled or message.body is None:
            return None
        if message.place == ACTIVE:
            return message
        if message.place != WAITING:
            return None
        self._fetch(self._living(message.lane), 10, woken=True)
        return message

    def _owner(self, back: int) -> str:
        leased = [owner for owner in reversed(self.owners) if owner in self.model.leases]
        ordered = leased + [owner for owner in reversed(self.owners) if owner not in self.model.leases]
        return ordered[back % len(ordered)]

    def _lease(self, pick: Pick) -> Lease:
        leases = self.grants
        if pick.held:
            if not self._held() and self.calm:
                self._begin_work()
            leases = self._held() or self.grants
        return leases[-1 - pick.back % len(leases)]

    def _held(self) -> list[Lease]:
        return [lease for lease in self.grants if self.model.valid(lease)]

    def _begin_work(self) -> None:
        """Have something leased, if anything can be."""
        free = [id_ for id_ in IDS if self.model.place(id_) == NOWHERE]
        if free:
            self._enqueue([Entry(free[0], self._body(len(free) % 2 == 0))], "live")
        self._fetch(self._living("live"), 2)

    def _lease_unreadable(self, what: str) -> Lease | None:
        """Have a message leased that nobody can read; ``None`` when there is no id for one."""
        missing = what == "missing body"
        free = [id_ for id_ in (STRAYS if missing else IDS) if self.model.place(id_) == NOWHERE]
        if not free:
            return None
        if missing:
            self.stray(free[0], "live")
        else:
            self._enqueue([Entry(free[0], self._body(True))], "live")
        self._fetch(self._living("live"), 10, woken=True)
        message = self.model.messages[free[0]]
        return message.lease if message.place == ACTIVE else None

    def _living(self, lane: Lane) -> str:
        """Return an owner of the lane that has its lease."""
        living = [owner for owner in reversed(self.owners) if owner in self.model.leases and lane_of(owner) == lane]
        return living[0] if living else self._join(lane)

    def _leases(self, picked: Sequence[Pick]) -> list[Lease]:
        return [self._lease(pick) for pick in picked] if self.grants else []

    def _of_one_owner(self, picked: Sequence[Pick], impostor: int, wrong_owner: bool) -> tuple[str, list[Lease]]:
        """Return leases of one owner; or, with ``wrong_owner``, as if they were of some other one."""
        leases = self._leases(picked) or [self.grants[-1]]
        owner = leases[0].owner
        if wrong_owner:
            owner = self._owner(impostor)
            self._happened("wrong owner")
            return owner, [Lease(owner, lease.id, lease.token) for lease in leases]
        return owner, [lease for lease in leases if lease.owner == owner]

    def _any_valid(self, owner: str, leases: Sequence[Lease]) -> bool:
        return any(self.model.valid(Lease(owner, lease.id, lease.token)) for lease in leases)

    def _note_late(self, leases: Sequence[Lease], stale: Sequence[Lease], valid: bool) -> None:
        if stale:
            self._happened("stale token")
        elif leases and not valid:
            self._happened("late repeat")

    def _body(self, malformed: bool) -> bytes:
        self.drawn += 1
        return b"\xff\x00" * malformed + b"body %d" % self.drawn

    def _happened(self, what: str) -> None:
        self.bench.coverage.happened(what)

    def _token(self, keyspace: Keyspace, id_: str) -> int:
        return next(held[id_] for held in keyspace.holds.values() if id_ in held)

    def _set_clock(self) -> None:
        wire, now_ms = self.family.wire, self.model.now_ms
        wire.call(SET_CLOCK, [CLOCK_KEY], [now_ms])
        for name, expires_at_ms in read(wire, self.family.keys).expiries.items():
            if 0 < expires_at_ms <= now_ms:
                wire.command("DEL", name)

    def _read(self) -> Keyspace:
        return read(self.family.wire, self.family.keys)


def differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Return what differs between two mappings, by name."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return "; ".join(f"{name}: {before.get(name)} → {after.get(name)}" for name in names)
