"""The state machine: draws operations, and runs each on a real server and on the model."""

from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from switchyard.broker.keys import ALL_LANES, LANES, Lane
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import LEASE_MS, SWEEP_GAP_MS, Entry, Lease, lane_of
from switchyard.broker.queue.unroutable import UnroutableLane
from tests.model import invariants
from tests.model.keyspace import DEAD, NOWHERE
from tests.model.model import LEVELS
from tests.model.rare_states import (
    RareStates,
    again,
    consumed,
    delays,
    few_picks,
    ids,
    lanes,
    levels,
    nonces,
    owners_back,
    picks,
)
from tests.model.steps import IDS, STRAYS, Bench, Pick, Reclaim

CALL = '["actor", 0, []]'


def run(bench: Bench, examples: int, steps: int = 50, *, shrink: bool = False) -> None:
    """Run the machine, the same examples each time.

    Args:
        shrink: Look for the shortest example that fails. Takes minutes, so it is for whoever looks for the cause.

    Raises:
        AssertionError: the broker did what it must not do.
    """
    chosen = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, database=None, derandomize=True,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,), report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with bench.scripts.in_place():
        run_state_machine_as_test(lambda: FamilyMachine(bench), settings=chosen)


class FamilyMachine(RareStates, RuleBasedStateMachine):
    """State machine of one family, its consumers, its operators, and the faults of its server."""

    @initialize(count=st.integers(1, 4), lane=lanes, delay_ms=delays, key=st.sampled_from(["", "", "k1"]))
    def stock(self, count: int, lane: Lane, delay_ms: int, key: str) -> None:
        """Have something to begin with, also when this example enqueues nothing."""
        self._enqueue([Entry(id_, self._body(False), key) for id_ in IDS[-count:]], lane, delay_ms=delay_ms)

    # Producers.

    @rule(
        wanted=st.lists(st.tuples(ids, st.sampled_from(["", "k0", "k0", "k1"])), min_size=1, max_size=4),
        lane=lanes, delay_ms=delays, level=levels, limit=st.sampled_from([0, 0, 1, 2, 4]), malformed=st.booleans(),
        again=again
    )  # fmt: skip
    def enqueue(
        self, wanted: list[tuple[str, str]], lane: Lane, delay_ms: int, level: int, limit: int, malformed: bool,
        again: bool
    ) -> None:  # fmt: skip
        entries = [Entry(id_, self._body(malformed), key) for id_, key in wanted]
        self._enqueue(entries, lane, delay_ms=delay_ms, level=level, limit=limit, again=again)

    @rule(stray=st.sampled_from(STRAYS), lane=consumed)
    def stray(self, stray: str, lane: Lane) -> None:
        self._stray(stray, lane)

    # Consumers.

    @rule(lane=consumed, again=again)
    def join(self, lane: Lane, again: bool) -> None:
        self._join(lane, again=again)

    @rule(
        owner=owners_back, count=st.sampled_from([2, 1, 4, 0]), acked=few_picks, woken=st.booleans(),
        repeated=st.sampled_from([False, False, False, True]), again=again
    )  # fmt: skip
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
        call = partial(self.family.move, lease, move=move, lane=lane, body=body, delay_ms=delay_ms, level=level)
        self._step("move", expected, call, again=again, changes=valid)

    @rule(pick=picks, again=again)
    def dead_letter(self, pick: Pick, again: bool) -> None:
        self._bury(self._lease(pick), again=again)

    @rule(pick=picks, what=st.sampled_from(["malformed body", "missing body", "any"]), again=again)
    def quarantine(self, pick: Pick, what: str, again: bool) -> None:
        unreadable = self._lease_unreadable(what) if what != "any" and self.calm else None
        if unreadable:
            self._happened(what)
        self._quarantine(unreadable or self._lease(pick), again=again)

    @rule(picked=few_picks, impostor=owners_back, wrong_owner=st.sampled_from([False, False, True]),
          side=st.sampled_from(["head", "tail"]), again=again)  # fmt: skip
    def release(self, picked: list[Pick], impostor: int, wrong_owner: bool, side: Any, again: bool) -> None:
        owner, leases = self._of_one_owner(picked, impostor, wrong_owner)
        valid = self._any_valid(owner, leases)
        expected = self.model.release(owner, leases, side)
        self._note_late(leases, expected, valid)
        call = partial(self.family.release, owner, leases, side=side)
        self._step("release", expected, call, again=again, changes=valid)

    @rule(pick=picks, again=again)
    def isolate(self, pick: Pick, again: bool) -> None:
        lease = self._lease(pick)
        valid = self.model.valid(lease)
        self._step("isolate", self.model.isolate(lease), lambda: self.family.isolate(lease), again=again, changes=valid)

    @rule(
        owner=owners_back, count=st.integers(1, 3), level=levels, stay=st.booleans(), ask=st.booleans(),
        back=st.booleans(), lane=lanes, again=again
    )  # fmt: skip
    def relocate(
        self, owner: int, count: int, level: int, stay: bool, ask: bool, back: bool, lane: Lane, again: bool
    ) -> None:
        """Waiting messages are moved to another family: taken, put there, forgotten here. Or that ends half-way.

        The cancellation of one may be requested meanwhile, and they may come back.
        """
        name = self._owner(owner)
        free = [id_ for id_ in IDS if self.model.place(id_) == NOWHERE]
        if free and self.calm and lane_of(name) in LANES:
            self._enqueue([Entry(free[0], self._body(False), "k2" if back else "")], lane_of(name), level=level)
        taken = self.model.take(name, count, level)

        def take() -> object:
            try:
                return administration.take(self.family, name, count, level=level)
            except LookupError:
                return None

        self._step("take", taken, take, changes=bool(taken))
        self.grants += [one.lease for one in taken or ()]
        going = [one for one in taken or () if one.body is not None]
        if going and ask:
            self._cancel(str(going[0].lease.id, "ascii"), again=again)
        if not going or stay:
            return
        stays, forget = self.model.forget(name, going), partial(administration.forget, self.family, name)
        self._step("forget", stays, lambda: forget(going), again=again, changes=len(stays) < len(going))
        if stays:
            self._happened("asked when taken")
            self._step("forget", self.model.forget(name, stays), lambda: forget(stays), again=again)
        if back:
            told = list({one.lease.id: one for one in (*going, *stays)}.values())
            self.model.place_taken(told, lane, level)
            place = partial(administration.place, self.family, told, lane=lane, level=level)
            self._step("place", None, place, again=again)

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
        parked = UnroutableLane(self.family, lane_of(name))
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
        if all_lost := len(expected) == len(owners):
            self._happened("lost lease")
        self._step("renew", expected, lambda: self.family.renew(owners), again=again, changes=not all_lost)

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
        owner=owners_back, only_lapsed=st.booleans(), finished=few_picks,
        running=st.lists(ids, max_size=3, unique=True), cause=st.sampled_from(["signal 9", "limit 5 s", ""]),
        heir=st.none() | owners_back, again=again
    )  # fmt: skip
    def reclaim(
        self, owner: int, only_lapsed: bool, finished: list[Pick], running: list[str], cause: str, heir: int | None,
        again: bool
    ) -> None:  # fmt: skip
        robbed = self._owner(owner)
        kept_by = "" if heir is None else self._owner(heir)
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
        if self.model.dead and self.model.place(id_) != DEAD:
            id_ = self.model.dead[-1]
        self._discard(id_, nonce, again=again)

    @rule(id_=ids, running=again, again=again)
    def cancel(self, id_: str, running: bool, again: bool) -> None:
        if running and self._held():
            id_ = str(self._held()[-1].id, "ascii")
        self._cancel(id_, again=again)

    @rule(what=st.sampled_from(["pause", "resume", "pause", "resume", "flush"]))
    def operate(self, what: str) -> None:
        if what == "flush":
            if self.calm:
                self._begin_work()
            self.model.flush()
            self._step("flush", None, partial(administration.flush, self.family), again=True)
        elif what == "pause":
            self._step("pause", self.model.pause(), partial(administration.pause, self.family))
            self._fetch(self._living("live"), 1, woken=True)
        else:
            self._step("resume", self.model.resume(), partial(administration.resume, self.family))

    # Faults of a server.

    @rule(
        what=st.sampled_from(["lose scripts", "fill", "make room", "refuse", "allow", "kill"]), dice=st.integers(0, 4)
    )
    def befall(self, what: str, dice: int) -> None:
        server, refused = self.bench.server, self.family.keys.refused
        if what == "lose scripts":
            self._happened("scripts flushed")
            self._step(what, b"OK", partial(self.family.calls.command, "SCRIPT", "FLUSH"), changes=False)
        elif what in ("fill", "make room"):
            self.full = what == "fill"
            self._step(what, None, server.fill if self.full else server.make_room, changes=False)
            if self.full:
                self._enqueue([Entry(IDS[dice], b"too much")], "live")
        elif what == "refuse" and not self.full:  # whoever watches the server found that it evicts
            self.unsafe = True
            self._step(what, b"OK", partial(self.family.calls.command, "SET", refused, "it evicts"))
        elif what == "allow" and self.unsafe:
            self.unsafe = False
            self._step(what, 1, partial(self.family.calls.command, "DEL", refused))
        elif what == "kill" and dice in (1, 3):  # seldom: it takes long
            # While a busy disk still syncs, a server puts off its writes by up to two seconds, and a kill loses them:
            # that is the window of `everysec`. Here what was answered is to be there again.
            server.config_set("appendfsync", "always")
            self.full = False
            self._happened("server killed")
            self._step(what, None, server.restart, changes=False)

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
                    self._step("ack", self.model.ack(owner, leases), partial(self.family.ack, owner, leases))
            due = [found.next_due_ms for found in fetched if found.next_due_ms is not None]
            if not any(found.grants for found in fetched):
                if not due:
                    break
                self.advance(min(due))
        invariants.drained(self.found)
