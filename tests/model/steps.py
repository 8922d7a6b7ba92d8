"""One operation of a family at a time, on a real server and on the model, and everything checked after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from switchyard.broker.errors import BrokerUnavailable, BrokerUnsafe, QueueFull
from switchyard.broker.keys import ALL_LANES, Keys, Lane
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import NORMAL, Entry, Fetched, Lease, QueueOperations, lane_of
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores import dead_lists
from switchyard.broker.stores.dead_lists import StoredLetter
from tests.chaos.server import ServerUnderTest
from tests.model import invariants
from tests.model.coverage import Coverage
from tests.model.keyspace import ACTIVE, DEAD, NOWHERE, SCHEDULED, WAITING, Keyspace, read
from tests.model.model import HOST, SLOTS, Full, Message, Model
from tests.model.scripts import CLOCK_KEY, Scripts, script_of

# Far ahead, so that nothing which the scripts let expire does so by the server's own clock.
START_MS = 4_102_444_800_000
IDS = [f"m{n}" for n in range(6)]
STRAYS = ["stray0", "stray1"]
SET_CLOCK = script_of("set clock", "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], ARGV[1])")


@dataclass(frozen=True)
class Pick:
    """Return a lease by its age, 0 for the latest: a held one if there are any, else one of all that ever were."""

    held: bool
    back: int


@dataclass(frozen=True)
class Reclaim:
    """Arguments of a reclaim; see :meth:`switchyard.broker.queue.operations.QueueOperations.reclaim`."""

    only_lapsed: bool = False
    finished: Sequence[Lease] = ()
    running: Sequence[str] = ()
    cause: str = ""
    heir: str = ""


@dataclass
class Bench:
    """A server, the operations under test on it, and what a run has visited."""

    server: ServerUnderTest
    family: QueueOperations
    scripts: Scripts
    coverage: Coverage


def bench_on(server: ServerUnderTest, scripts: Scripts, family_class: Any = QueueOperations) -> Bench:
    return Bench(server, family_class(calls_on(connect(server.url)), Keys("model").queue("q")), scripts, Coverage())


class Steps:
    """A family, its model, and what is drawn for them. The rules that draw are the machine's."""

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
        for node in self.family.calls.places().values():
            node.command("FLUSHDB")
        self._set_clock()
        self.found = self._read()
        self.running: set[str] = set()  # what the reclaim that runs is told to have been running
        owners = [self._join(lane) for lane in ALL_LANES]
        self._enqueue([Entry(IDS[0], self._body(False))], "live")
        self._fetch(owners[0], 1)

    @property
    def calm(self) -> bool:
        """Whether messages go in and out."""
        return not (self.full or self.unsafe or self.model.paused)

    # One operation, on the server and on the model.

    def _step(self, operation: str, expected: object, call: Any, *, again: bool = False, changes: bool = True) -> None:
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
            stayed = operation == "reclaim" and old == new == ACTIVE
            if old != new or (stayed and self._token(before, id_) != self._token(found, id_)):
                self.bench.coverage.transition(operation, old, new)
        self.visited |= set(now.values())

    def _enqueue(
        self, entries: Sequence[Entry], lane: Lane, *, delay_ms: int = 0, level: int = NORMAL, limit: int = 0,
        again: bool = False,
    ) -> None:  # fmt: skip
        if self.full or self.unsafe:
            expected = "server full" if self.full else "server unsafe"
            self._happened(expected)
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

    def _stray(self, stray: str, lane: Lane) -> None:
        if self.full or self.model.place(stray) != NOWHERE:
            return
        self.model.stray(stray, lane)

        def call() -> None:
            self.family.calls.command("RPUSH", self.family.keys.waiting(lane)[1], stray)
            self.family.notify(lane)

        self._step("stray", None, call)

    def _join(self, lane: Lane, *, again: bool = False) -> str:
        owner = f"c{len(self.owners)}/{lane}"
        self.owners.append(owner)
        self.model.join(owner)
        work = f"{SLOTS} {int(lane == 'alone')} {HOST}"
        self._step("join", None, lambda: self.family.join(owner, work=work), again=again)
        return owner

    def _fetch(
        self, owner: str, count: int, acked: Sequence[Lease] = (), *, woken: bool = False, repeated: bool = False,
        again: bool = False,
    ) -> Fetched:  # fmt: skip
        """Fetch as a consumer does, which was ``woken`` by the bell or not, or ``repeated`` its last request."""
        if repeated:
            self._happened("repeated fetch")
        else:
            self.requests[owner] = self.requests.get(owner, 0) + 1
        request = self.requests.setdefault(owner, 1)
        last_token = self.model.token
        valid = self._any_valid(owner, acked)
        expected = self.model.fetch(owner, count, request, acked)
        if expected.state in ("gone", "paused"):
            self._happened("lost lease" if expected.state == "gone" else "paused")
        bell = self.family.keys.wakeup(lane_of(owner))
        if woken:
            self.family.calls.command("LPOP", bell)

        def call() -> Fetched:
            found = self.family.fetch(owner, count, request=request, acked=acked)
            if found.state == "gone" and woken:
                self.family.notify(lane_of(owner))  # for the one that was to be woken in its place
            return found

        self._step("fetch", expected, call, again=again, changes=valid or woken or expected.state == "ok")
        if expected.state == "ok" and not repeated:  # a reply that was lost is given again, and nothing more is done
            invariants.promoted(self.found, owner, self.model.now_ms)
        for grant in expected.grants:
            if int(grant.lease.token) > last_token:
                self.grants.append(grant.lease)
        return expected

    def _bury(self, lease: Lease, *, again: bool = False) -> None:
        valid = self.model.valid(lease)
        letter = b'{"id": "%s", "token": %s}' % (lease.id, lease.token)
        expected = self.model.dead_letter(lease, letter)
        self._note_late([lease], [] if expected else [lease], valid)
        self._step("dead_letter", expected, lambda: self.family.dead_letter(lease, letter), again=again, changes=valid)

    def _discard(self, id_: str, nonce: str, *, again: bool) -> None:
        dead = self.model.place(id_) == DEAD
        letter = StoredLetter(id_, self.model.messages[id_].letter if dead else b"{}", None)
        expected = self.model.discard(id_, nonce)

        def call() -> bool:
            return dead_lists.discard(self.family, [letter], nonce=nonce)[id_] == "moved"

        self._step("discard", expected, call, again=again, changes=dead)

    def _cancel(self, id_: str, *, again: bool) -> None:
        expected = self.model.cancel(id_)
        if expected == "asked":
            self._happened("asked to stop")

        def call() -> str:
            return administration.cancel(self.family, {id_: b""})[id_].removeprefix("was ")

        self._step("cancel", expected, call, again=again, changes=expected != "unknown")

    def _due_now(self, id_: str, *, as_read: bool, again: bool) -> None:
        before = self.model.messages.get(id_)
        later = before is not None and before.place == SCHEDULED and before.due_ms > self.model.now_ms
        known = before.body if before is not None and before.body is not None and as_read else b"{}"
        body = self._body(False)
        expected = self.model.due_now(id_, known, body)
        if later and expected == 1:
            self._happened("due early")
        call = partial(administration.due_now, self.family, id_, as_read=known, body=body)
        self._step("due_now", expected, call, again=again, changes=later and as_read)

    def _amend(self, id_: str, *, as_read: bool, later_ms: int | None, again: bool) -> None:
        before = self.model.messages.get(id_)
        known = before.body if before is not None and before.body is not None and as_read else b"{}"
        body, due_ms = self._body(False), None if later_ms is None else self.model.now_ms + later_ms
        expected = self.model.amend(id_, known, body, due_ms)
        if expected == 1:
            self._happened("amended")
        call = partial(administration.amend, self.family, id_, as_read=known, body=body, due_at_ms=due_ms)
        self._step("amend", expected, call, again=again, changes=expected == 1)

    def _requeue(self, id_: str, *, as_read: bool, level: int, nonce: str, again: bool) -> None:
        dead = self.model.place(id_) == DEAD
        letter = self.model.messages[id_].letter if dead and as_read else b"{}"
        body = self._body(False)
        expected = self.model.requeue(id_, letter, body, level, nonce)

        def call() -> bool:
            stored, bodies = StoredLetter(id_, letter, None), {id_: (body, level)}
            return dead_lists.requeue(self.family, [stored], bodies, nonce=nonce)[id_] == "moved"

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
            # A repeated reclaim returns the same messages to the heir, and nothing to an owner that received none.
            self._step("reclaim", self.model.reclaim(owner, **vars(what)), call, changes=False)

    def _quarantine(self, lease: Lease, *, again: bool) -> None:
        valid = self.model.valid(lease)
        entry = b'{"id": "%s", "token": %s}' % (lease.id, lease.token)
        expected = self.model.quarantine(lease, entry)
        self._step("quarantine", expected, lambda: self.family.quarantine(lease, entry), again=again, changes=valid)

    # Draws of the rules.

    def _drive_to_active(self, id_: str) -> Message | None:
        """Let an owner lease a waiting or due message, and return it; ``None`` when none can."""
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
        free = [id_ for id_ in IDS if self.model.place(id_) == NOWHERE]
        if free:
            self._enqueue([Entry(free[0], self._body(len(free) % 2 == 0))], "live")
        self._fetch(self._living("live"), 2)

    def _lease_unreadable(self, what: str) -> Lease | None:
        """Let an owner lease an unreadable message, and return it; ``None`` when there is no id for one."""
        missing = what == "missing body"
        free = [id_ for id_ in (STRAYS if missing else IDS) if self.model.place(id_) == NOWHERE]
        if not free:
            return None
        if missing:
            self._stray(free[0], "live")
        else:
            self._enqueue([Entry(free[0], self._body(True))], "live")
        self._fetch(self._living("live"), 10, woken=True)
        message = self.model.messages[free[0]]
        return message.lease if message.place == ACTIVE else None

    def _living(self, lane: Lane) -> str:
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
        wire, now_ms = self.family.calls, self.model.now_ms
        wire.call(SET_CLOCK, [CLOCK_KEY], [now_ms])
        for name, expires_at_ms in read(wire, self.family.keys).expiries.items():
            if 0 < expires_at_ms <= now_ms:
                wire.command("DEL", name)

    def _read(self) -> Keyspace:
        return read(self.family.calls, self.family.keys)


def differences(before: dict[str, Any], after: dict[str, Any]) -> str:
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return "; ".join(f"{name}: {before.get(name)} → {after.get(name)}" for name in names)
