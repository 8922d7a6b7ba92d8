"""Strategies from which the machine's rules draw, and rules that lead into states which a random walk seldom finds."""

from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from switchyard.broker.queue.operations import LEASE_MS, NORMAL, Entry, lane_of
from tests.model.keyspace import NOWHERE
from tests.model.steps import IDS, Pick, Reclaim, Steps

CRASH_LIMIT = 3
ON_SCHEDULED = (
    *("cancel", "cancel", "due now", "due now, read before a change"),
    *("amend", "put off", "bring forward", "amend, read before a change"),
)
LATER_MS = {"put off": 9_000, "bring forward": 100}
ids = st.sampled_from(IDS)
lanes = st.sampled_from(["live", "live", "retry"])
consumed = st.sampled_from(["live", "live", "retry", "alone"])
levels = st.sampled_from([2, 2, 1, 3])
delays = st.sampled_from([0, 0, 1, 700, 5_000, 40_000])
picks = st.builds(Pick, held=st.booleans(), back=st.integers(0, 15))
few_picks = st.lists(picks, max_size=3)
# The latest is 0; those without a lease come last.
owners_back = st.integers(0, 5)
nonces = st.sampled_from(["n0", "n1", "n2"])
again = st.booleans()


class RareStates(Steps):
    """Rules that take several steps at once."""

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
    @rule(id_=ids, ways=st.lists(st.sampled_from(["beside", "alone"]), min_size=1, max_size=4))
    def lapse(self, id_: str, ways: list[str]) -> None:
        """Pools end as a whole while a message runs in them, beside others or alone."""
        if self.model.place(id_) == NOWHERE:
            self._enqueue([Entry(id_, self._body(False))], "live")
        for way in ways:
            held = self._drive_to_active(id_)
            if held is not None and way == "alone" and lane_of(held.owner) != "alone":
                lease = held.lease
                self._step("isolate", self.model.isolate(lease), partial(self.family.isolate, lease))
                held = self._drive_to_active(id_)
            if held is None:
                return
            self.model.advance(LEASE_MS + 1)
            self._step("advance", None, self._set_clock)
            self._reclaim(held.owner, Reclaim(only_lapsed=True))
            if held.crashes is not None and held.crashes.lapses:
                self._happened("counted lapse")

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
            self._discard(id_, "n0", again=again)

    @precondition(lambda self: self.calm)
    @rule(id_=ids, spare=st.booleans(), again=again)
    def keep_suspect(self, id_: str, spare: bool, again: bool) -> None:
        """A worker dies; another one of its pool gets what ran. ``spare`` says whether that one lives itself."""
        held = self._drive_to_active(id_)
        if held is None:
            return
        heir = self._join(lane_of(held.owner))
        if not spare:
            self._happened("heir gone")
            self._reclaim(heir, Reclaim())
        self._reclaim(held.owner, Reclaim(running=[id_], cause="signal 11", heir=heir), again=again)

    @precondition(lambda self: self.calm)
    @rule(id_=ids, how=st.sampled_from(["ack", "move", "dead_letter", "release"]), again=again)
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
        elif how == "dead_letter":
            self._bury(old, again=again)
        else:
            stale = self.model.release(old.owner, [old], "tail")
            call = partial(self.family.release, old.owner, [old], side="tail")
            self._step(how, stale, call, again=again, changes=False)

    @rule(id_=ids, delay_ms=st.sampled_from([700, 5_000]), act=st.sampled_from(ON_SCHEDULED), again=again)
    def act_on_scheduled(self, id_: str, delay_ms: int, act: str, again: bool) -> None:
        if self.model.place(id_) == NOWHERE:
            self._enqueue([Entry(id_, self._body(False))], "live", delay_ms=delay_ms)
            if act == "cancel":
                self._cancel(id_, again=again)
        if "due now" in act:
            self._due_now(id_, as_read=act == "due now", again=again)
        elif act != "cancel":
            as_read = "read before" not in act
            self._amend(id_, as_read=as_read, later_ms=LATER_MS.get(act), again=again)
