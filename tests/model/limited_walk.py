"""A random walk of a family with limits on what runs at once, order, fairness and batches, judged by what they promise.

The state machine beside it predicts every key of a queue without limits. Here nothing is predicted: after each step the
keys are read, and must keep what the documentation promises, whichever of several messages was served.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import dramatiq
import msgspec
from dramatiq.brokers.stub import StubBroker
from dramatiq.message import Message as DramatiqMessage

from switchyard.batches import counting
from switchyard.broker.keys import ALL_LANES, Keys, Lane
from switchyard.broker.queue import administration, limits
from switchyard.broker.queue.operations import LEASE_MS, Entry, Fetched, Lease, QueueOperations, lane_of
from switchyard.broker.shapes import ActorPause
from switchyard.broker.stores import dead_lists
from switchyard.broker.stores.batches import CALLBACKS, Batches, BatchFacts, callback_id, member_id
from switchyard.broker.stores.dead_lists import StoredLetter
from switchyard.broker.topology import FairShare
from tests.model import invariants
from tests.model.keyspace import ACTIVE, DEAD, FINISHED, SCHEDULED, UNFINISHED, WAITING, Keyspace, read
from tests.model.scripts import CLOCK_KEY
from tests.model.steps import SET_CLOCK, START_MS, Bench

FOR_A_LIMIT, IN_A_LINE = 205_000_000_000_000, 209_000_000_000_000  # due times, see include/limits and include/fair
PUT_OFF = 200_000_000_000_000
CUSTOMERS, HOSTS = (1, 2, 3), ("a", "b")
BATCH = "b00000000000"
MOST_ROUNDS = 400


@dataclass
class Sent:
    """A message as its sender knows it: the values that its limits count by, and its turn in its sequence."""

    actor: str
    customer: int
    host: str
    turn: int
    started: bool = False
    out_of_turn: bool = False  # an operator has moved it

    @property
    def body(self) -> bytes:
        fields = {"actor": self.actor, "args": [self.customer], "kwargs": {"host": self.host}}
        return json.dumps(fields, separators=(",", ":")).encode()


@dataclass
class Member:
    """A member of the batch: how it ended last, and whether it ever failed."""

    outcome: str = ""
    failed_once: bool = False


class Killed(Exception):
    """The scheduler was killed at this point."""


@dataclass
class Walk:
    """One example: some owners, what was sent, what each owner believes to hold, and a batch.

    Args:
        bench: Its server is emptied.
        seed: Every draw follows from it.
    """

    bench: Bench
    seed: int
    history: list[str] = field(default_factory=list)

    most_at_once: ClassVar = {"sync": 2, "call": 3}

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.family: QueueOperations = self.bench.family
        self.now_ms = START_MS
        self.sent: dict[str, Sent] = {}
        self.members: dict[str, Member] = {}
        self.grants: list[Lease] = []
        self.requests: Counter[str] = Counter()
        self.last_fetch: dict[str, int] = {}
        self.next_due_ms: dict[str, int | None] = {}
        self.paused: set[str] = set()
        self.waited: dict[str, tuple[str, int]] = {}
        self.passed_on: dict[str, int] = {}
        self.served: Counter[str] = Counter()
        self.callbacks: Counter[str] = Counter()
        for node in self.family.calls.places().values():
            node.command("FLUSHDB")
        self._set_clock()
        self.declared = {
            "sync": {"concurrency": "2 per customer_id"},
            "push": {"ordered_by": "customer_id", "concurrency": "1 per host"},
            "call": {"concurrency": [3, "1 per host"]},
            "free": {},
        }
        self._declare()
        self.is_fair = self.dice.random() < 0.5
        if self.is_fair:
            limits.declare_fair(self.family, FairShare("customer_id"), self._actors())
        self.owners = [self._join(lane) for lane in ("live", "live", "retry", "alone")]
        self.batches = Batches(self.family.calls, Keys("model"))
        self.found = self._read()
        self.steps: list[tuple[int, Callable[[], object]]] = [
            *[(9, self.send), (12, self.fetch), (9, self.ack), (2, self.fetch_again), (3, self.add_members)],
            *[(4, self.retry), (2, self.bury), (3, self.requeue), (1, self.discard), (3, self.release)],
            *[(3, self.kill_child), (1, self.isolate), (2, self.lose_lease), (4, self.cancel), (2, self.pause)],
            *[(4, self.pause_actor), (3, self.amend), (2, self.due_now), (1, self.declare_again), (3, self.sweep)],
            (4, self.count_batches),
        ]

    def run(self, count: int) -> None:
        """Take some steps, then have everything end.

        Raises:
            AssertionError: a promise is broken; the note of the error says by which steps.
        """
        weights, acts = [weight for weight, _ in self.steps], [act for _, act in self.steps]
        try:
            for _ in range(count):
                act = self.dice.choices(acts, weights)[0]
                self.history.append(act.__name__)  # type: ignore[attr-defined]
                act()
                self._check(self.history[-1])
            self._drain()
        except AssertionError as error:
            error.add_note(f"seed {self.seed}, after {len(self.history)} steps: {' '.join(self.history)}")
            raise

    # Senders.

    def send(self, *, count: int = 0) -> None:
        """Send some messages, of which one may be sent again."""
        entries = [self._new() for _ in range(count or self.dice.randint(1, 4))]
        delayed = self.sent[entries[0].id].actor != "push" and self.dice.random() < 0.1
        if delayed:
            entries = entries[:1] + [entry for entry in entries[1:] if self.sent[entry.id].actor != "push"]
            self.sent = {id_: one for id_, one in self.sent.items() if id_ in {e.id for e in entries} | self._known()}
        again = self.dice.random() < 0.2
        for _ in range(1 + again):
            self.family.enqueue(entries, delay_ms=700 if delayed else 0)

    def add_members(self) -> None:
        count, first = self.dice.randint(1, 3), len(self.members)
        ids = [member_id(BATCH, str(first + number)) for number in range(count)]
        callbacks = {name: self._callback(name) for name in CALLBACKS}
        self.batches.make(BATCH)
        answer = self.batches.add(BATCH, [(id_, "q") for id_ in ids], facts=BatchFacts("b"), callbacks=callbacks)
        if isinstance(answer, str):  # it has succeeded
            return
        self.members |= {id_: Member() for id_ in ids}
        self.family.enqueue([self._new(id_) for id_ in ids])

    # Workers.

    def fetch(self) -> None:
        owner = self.dice.choice(self.owners)
        held = [lease for lease in self.grants if lease.owner == owner]
        acked = self.dice.sample(held, min(len(held), self.dice.randint(0, 2)))
        self._fetch(owner, self.dice.randint(1, 4), acked)

    def fetch_again(self) -> None:
        """Repeat a fetch whose answer was lost."""
        owner = self.dice.choice(self.owners)
        if owner in self.last_fetch:
            self._granted(self.family.fetch(owner, self.last_fetch[owner], request=self.requests[owner]))

    def ack(self) -> None:
        owner = self.dice.choice(self.owners)
        held = [lease for lease in self.grants if lease.owner == owner]
        self._ack(owner, self.dice.sample(held, min(len(held), 3)))

    def retry(self) -> None:
        """Move what an owner holds to another lane, or to a later time, sometimes with other arguments."""
        if not self.grants:
            return
        lease = self.dice.choice(self.grants)
        one = self.sent[str(lease.id, "ascii")]
        if self.dice.random() < 0.2:
            one.host = self.dice.choice(HOSTS)
        lane: Lane = self.dice.choice(["retry", "live"])
        delay_ms = self.dice.choice([0, 1, 700])
        assert self.family.move(lease, move="divert", lane=lane, body=one.body, delay_ms=delay_ms)
        self.grants.remove(lease)

    def bury(self) -> None:
        if self.grants:
            lease = self.dice.choice(self.grants)
            self.grants.remove(lease)
            assert self.family.dead_letter(lease, b"{}")
            self._ended(lease, "failed")

    def requeue(self) -> None:
        """Requeue a dead letter, which leaves its sequence: in a fair queue it goes first, else last."""
        for id_ in self.found.dead[:1]:
            one = self.sent[id_]
            letter, nonce = StoredLetter(id_, b"{}", None), str(len(self.history))
            assert dead_lists.requeue(self.family, [letter], {id_: (one.body, 2)}, nonce=nonce)[id_] == "moved"
            one.out_of_turn = True

    def discard(self) -> None:
        for id_ in self.found.dead[:1]:
            letter = StoredLetter(id_, b"{}", None)
            assert dead_lists.discard(self.family, [letter], nonce=str(len(self.history)))[id_] == "moved"

    def release(self) -> None:
        owner = self.dice.choice(self.owners)
        held = [lease for lease in self.grants if lease.owner == owner]
        going = self.dice.sample(held, min(len(held), 2))
        assert self.family.release(owner, going, side=self.dice.choice(["head", "head", "tail"])) == []
        for lease in going:
            self.grants.remove(lease)

    def kill_child(self) -> None:
        """Have a child killed: some of its messages were finished, some ran, and another child may get these."""
        owner = self.dice.choice(self.owners)
        held = [lease for lease in self.grants if lease.owner == owner]
        finished = self.dice.sample(held, min(len(held), self.dice.randint(0, 1)))
        running = [str(lease.id, "ascii") for lease in held if lease not in finished][:2]
        heirs = [other for other in self.owners if other != owner and lane_of(other) == lane_of(owner)]
        heir = self.dice.choice([*heirs, ""])
        found = self.family.reclaim(owner, finished=finished, running=running, cause="signal 9", heir=heir)
        assert found is not None
        self._robbed(owner)
        for lease in finished:
            self._ended(lease, "done")
        self.grants += [suspect.lease for suspect in found.suspects if suspect.lease is not None]

    def isolate(self) -> None:
        if self.grants:
            lease = self.dice.choice(self.grants)
            self.grants.remove(lease)
            assert self.family.isolate(lease)

    def lose_lease(self) -> None:
        """Have a host die: the lease of an owner expires, and a sweeper takes its messages back."""
        owner = self.dice.choice(self.owners)
        for _ in range(3):
            self._advance(LEASE_MS // 2)
            self.family.renew([other for other in self.owners if other != owner])
            lapsed = self.family.lapsed()
        assert lapsed == [owner]
        self.family.reclaim(owner, only_lapsed=True)
        self._robbed(owner)

    # Operators, and time.

    def cancel(self) -> None:
        places = self.found.places()
        open_ids = [id_ for id_ in self.sent if places.get(id_, [""])[0] in UNFINISHED]
        if open_ids:
            id_ = self.dice.choice(open_ids)
            if administration.cancel(self.family, {id_: b""})[id_] == "cancelled":
                self._outcome(id_, "cancelled")

    def pause(self) -> None:
        (administration.resume if self.found.paused else administration.pause)(self.family)

    def pause_actor(self) -> None:
        if self.paused:
            field_ = self.dice.choice(sorted(self.paused))
            self.paused.remove(field_)
            administration.resume_actor(self.family, field_)
            return
        actor = self.dice.choice(["sync", "push", "push", "call"])
        by_value = {"argument": "customer_id", "position": 1, "value": self.dice.choice(CUSTOMERS)}
        made = ActorPause(0, 0, 0, actor, **(by_value if self.dice.random() < 0.6 else {}))
        administration.pause_actor(self.family, made)
        self.paused.add(made.field)

    def amend(self) -> None:
        places = self.found.places()
        waiting = [id_ for id_ in self.sent if places.get(id_, [""])[0] in (WAITING, SCHEDULED)]
        if waiting:
            id_ = self.dice.choice(waiting)
            one = self.sent[id_]
            before = one.body
            one.host, one.out_of_turn = self.dice.choice(HOSTS), True
            if self.found.scheduled["live"].get(id_, 0) < IN_A_LINE:  # else it stays in the line of its customer
                one.customer = self.dice.choice(CUSTOMERS)
            assert administration.amend(self.family, id_, as_read=before, body=one.body, due_at_ms=None) == 1

    def due_now(self) -> None:
        """Make a scheduled message due at once, one that waits for a limit too."""
        scheduled = {id_: at for due in self.found.scheduled.values() for id_, at in due.items()}
        if scheduled:
            id_ = self.dice.choice(sorted(scheduled))
            one = self.sent[id_]
            answer = administration.due_now(self.family, id_, as_read=one.body, body=one.body)
            assert answer == (scheduled[id_] < FOR_A_LIMIT)  # there, and in a line, it keeps its turn
            one.out_of_turn |= scheduled[id_] < FOR_A_LIMIT  # that of a pause, or of its delay

    def declare_again(self) -> None:
        self.declared["sync"] = {"concurrency": f"{self.dice.randint(1, 3)} per customer_id"}
        self._declare()

    def sweep(self) -> None:
        """Look for lost leases and places, perhaps after two seconds in which a lane fetched nothing."""
        self._advance(self.dice.choice([0, 1, 2_500]))
        self.family.renew(self.owners)
        assert self.family.lapsed() == []

    # Batches.

    def count_batches(self, *, may_die: bool = True) -> None:
        """Carry what the queue has noted to the batch, and call back, as the scheduler does; it may be killed."""
        fuse = [self.dice.randint(0, 8) if may_die else 1_000]

        def burn() -> None:
            fuse[0] -= 1
            if fuse[0] < 0:
                raise Killed

        store = Batches(self.family.calls, Keys("model"))
        for name in ("count", "note", "drop_ends"):
            setattr(store, name, _burning(getattr(Batches, name).__get__(store), burn))
        send = _burning(self._send_callback, burn)
        broker = SimpleNamespace(declare_queue=lambda _: None, enqueue=send)
        records = SimpleNamespace(queues=("q",), calls=self.family.calls, keys=Keys("model"))
        place = SimpleNamespace(batches=store, records=records)
        with (
            mock.patch.object(counting, "facilities", lambda: place),
            mock.patch.object(counting.dramatiq, "get_broker", lambda: broker),
            suppress(Killed),
        ):
            counting.count_batches()

    def _send_callback(self, message: DramatiqMessage[Any]) -> None:
        known = self._known()
        self.sent.setdefault(message.message_id, Sent("free", 1, "a", self._next_turn()))
        self.family.enqueue([Entry(message.message_id, self.sent[message.message_id].body)])
        if message.message_id not in known:
            self.callbacks[message.message_id] += 1

    def _callback(self, name: str) -> bytes:
        fields = {"queue_name": "q", "actor_name": "free", "args": [], "kwargs": {}, "options": {}}
        return msgspec.json.encode(fields | {"message_id": callback_id(BATCH, name), "message_timestamp": START_MS})

    # Their parts.

    def _new(self, id_: str = "") -> Entry:
        id_ = id_ or f"{self.dice.getrandbits(40):010x}"
        actor = self.dice.choice(["sync", "push", "push", "call", "free"])
        self.sent[id_] = Sent(actor, self.dice.choice(CUSTOMERS), self.dice.choice(HOSTS), self._next_turn())
        return Entry(id_, self.sent[id_].body)

    def _next_turn(self) -> int:
        return 1 + max((one.turn for one in self.sent.values()), default=0)

    def _known(self) -> set[str]:
        return set(self.found.places())

    def _actors(self) -> list[Any]:
        def function(customer_id: int = 1, host: str = "a") -> None: ...

        broker = StubBroker(middleware=[])
        broker.actor_options |= {"concurrency", "ordered_by"}
        declare = partial(dramatiq.actor, function, broker=broker)
        return [declare(actor_name=name, **options) for name, options in self.declared.items()]

    def _declare(self) -> None:
        limits.declare(self.family, self._actors())

    def _join(self, lane: Lane) -> str:
        owner = f"c{len(self.requests)}/{lane}"
        self.requests[owner] = 0
        self.family.join(owner)
        return owner

    def _fetch(self, owner: str, count: int, acked: list[Lease]) -> Fetched:
        self.family.calls.command("LPOP", self.family.keys.wakeup(lane_of(owner)))
        self.requests[owner] += 1
        found = self.family.fetch(owner, count, request=self.requests[owner], acked=acked)
        assert found.state in ("ok", "paused", "over") and found.stale == []
        for lease in acked:
            self.grants.remove(lease)
            self._ended(lease, "done")
        if found.state == "over":
            administration.resume_actor(self.family)
            return self._fetch(owner, count, [])
        self.last_fetch[owner] = count
        self.next_due_ms[owner] = None if found.next_due_ms is None else self.now_ms + found.next_due_ms
        before, in_line = self.found, self._in_line()
        self._granted(found)
        self._check("fetch")
        self._check_served(before, in_line, [str(grant.lease.id, "ascii") for grant in found.grants])
        if found.state == "ok" and len(found.grants) < count:
            self._check_nothing_idles(lane_of(owner))
        return found

    def _granted(self, found: Fetched) -> None:
        for grant in found.grants:
            if grant.lease not in self.grants:
                self.grants.append(grant.lease)
            id_ = str(grant.lease.id, "ascii")
            assert grant.body == self.sent[id_].body
            self._check_sequence(id_)
            self.sent[id_].started = True

    def _ack(self, owner: str, leases: list[Lease]) -> None:
        for _ in range(self.dice.choice([1, 1, 2])):
            assert self.family.ack(owner, leases) == []
        for lease in leases:
            self.grants.remove(lease)
            self._ended(lease, "done")

    def _ended(self, lease: Lease, outcome: str) -> None:
        self._outcome(str(lease.id, "ascii"), outcome)

    def _outcome(self, id_: str, outcome: str) -> None:
        if id_ in self.members:
            self.members[id_].outcome = outcome
            self.members[id_].failed_once |= outcome == "failed"

    def _robbed(self, owner: str) -> None:
        """Have another owner begin in the place of one whose lease is gone."""
        self.grants = [lease for lease in self.grants if lease.owner != owner]
        self.owners[self.owners.index(owner)] = self._join(lane_of(owner))

    def _advance(self, ms: int) -> None:
        self.now_ms += ms
        self._set_clock()

    def _set_clock(self) -> None:
        self.family.calls.call(SET_CLOCK, [CLOCK_KEY], [self.now_ms])

    def _read(self) -> Keyspace:
        return read(self.family.calls, self.family.keys)

    # Promises.

    def _check(self, operation: str) -> None:
        before, self.found = self.found, self._read()
        found = self.found
        invariants.conserved(found, set(self.sent), set())
        invariants.owned(found)
        was = {id_: where[0] for id_, where in before.places().items()}
        now = {id_: where[0] for id_, where in found.places().items()}
        for id_, place in was.items():
            if place in (FINISHED, DEAD):
                assert now[id_] == place or operation in ("requeue", "discard"), f"{id_} was {place}, is {now[id_]}"
        holders = self._holders()
        self._check_limits(before, holders)
        self._check_places(holders, now)
        self._check_turns()
        self._check_bells()

    def _keys_of(self, one: Sent) -> dict[str, int]:
        """Return the keys of a message by which limits count, and how many of each may run."""
        found = {}
        for limit in limits.limits_of(self.declared[one.actor]):
            key = f"{'o' if limit.ordered else 'c'} {one.actor}"
            if limit.argument:
                key += f" {limit.argument}=" + json.dumps(one.customer if limit.argument == "customer_id" else one.host)
            found[key] = limit.n
        return found

    def _holders(self) -> dict[str, set[str]]:
        found: defaultdict[str, set[str]] = defaultdict(set)
        for key, kind, id_ in self._turns():
            if kind == "h":
                found[key].add(id_)
        return found

    def _turns(self) -> Iterator[list[str]]:
        for member in sorted(self.found.raw.get(self.family.keys.turns, ())):
            yield str(member, "ascii").split("\n")

    def _check_limits(self, before: Keyspace, holders: dict[str, set[str]]) -> None:
        """Check that a start puts none of its keys over its limit."""
        held = {id_ for ids in self.found.holds.values() for id_ in ids}
        had = {id_ for ids in before.holds.values() for id_ in ids}
        running: defaultdict[str, set[str]] = defaultdict(set)
        for id_ in held:
            for key in self._keys_of(self.sent[id_]):
                running[key].add(id_)
        for id_ in held - had:
            for key, n in self._keys_of(self.sent[id_]).items():
                assert len(running[key]) <= n, f"{len(running[key])} of {key} run, {n} may"
                assert id_ in holders[key], f"{id_} runs without a place of {key}"

    def _check_places(self, holders: dict[str, set[str]], now: dict[str, str]) -> None:
        """Check that each place is of one that runs or is next, and none is free for which a message waits."""
        due = {id_: at for lane in self.found.scheduled.values() for id_, at in lane.items()}
        for key, ids in holders.items():
            for id_ in ids:
                is_next = now[id_] in (ACTIVE, WAITING) or due.get(id_, 0) >= IN_A_LINE
                assert is_next if key[0] == "c" else now[id_] in UNFINISHED, (
                    f"{id_}, which is {now[id_]}, has a place of {key}"
                )
        records = {str(id_, "ascii"): text for id_, text in self.found.raw.get(self.family.keys.waits, {}).items()}
        indexed: set[str] = set()
        first: dict[str, str] = {}
        for key, kind, id_ in self._turns():
            if kind != "h":
                indexed.add(id_)
                first.setdefault(key, id_)
        for id_, at in due.items():
            if FOR_A_LIMIT <= at < IN_A_LINE:
                assert id_ in indexed, f"{id_} waits for a limit and is in no line"
        for key, id_ in first.items():
            if FOR_A_LIMIT <= due.get(id_, 0) < IN_A_LINE:  # else it was made due, and its fetch decides
                head, *wanted = str(records[id_], "ascii").split("\n")
                n, its_key = wanted[int(head.split()[3]) - 1].split(" ", 1)
                assert its_key == key
                assert len(holders.get(key, ())) >= int(n), f"{id_} waits for {key}, of which a place is free"

    def _check_turns(self) -> None:
        """Check that those who got a place of a key stand in their list in the order in which they waited for it."""
        slots = self.found.raw.get(self.family.keys.slots, {})
        passed_on = {str(id_, "ascii") for id_, text in slots.items() if text.startswith(b"next")}
        self.passed_on = {id_: self.passed_on.get(id_, len(self.history)) for id_ in passed_on}
        for id_, text in self.found.raw.get(self.family.keys.waits, {}).items():
            if not id_.startswith(b"#"):
                head, *wanted = str(text, "ascii").split("\n")
                turn, *_, at, _ = head.split()
                self.waited[str(id_, "ascii")] = (wanted[int(at) - 1], int(turn))
        for ids in self.found.waiting.values():
            got = [(*self.waited[id_], id_) for id_ in ids if id_ in passed_on and id_ in self.waited]
            for key, turn, id_ in got:
                after = [other for other in got[got.index((key, turn, id_)) :] if other[0] == key]
                early = [each[2] for each in after if (self.passed_on[each[2]], each[1]) < (self.passed_on[id_], turn)]
                assert not early, f"{id_} goes before {early}, which waited for {key} before it"

    def _check_sequence(self, id_: str) -> None:
        """Check that a message with a sequence starts after the end of those of its key that were sent before it."""
        one = self.sent[id_]
        if one.actor != "push" or one.started or one.out_of_turn:
            return
        places = self._read().places()
        for other_id, other in self.sent.items():
            if (other.actor, other.customer) == (one.actor, one.customer) and not other.out_of_turn:
                ended = places[other_id][0] not in UNFINISHED or other_id in self.found.notes("cancel")
                assert other.turn >= one.turn or ended, f"{id_} started before {other_id}, which was sent before it"

    def _check_bells(self) -> None:
        """Check that somebody is told of each message that can be fetched."""
        for lane in ALL_LANES:
            if self.found.paused or self.found.rung[lane]:
                continue
            assert not [place for place in self.found.waiting if place[0] == lane], f"messages wait in {lane}, unheard"
            due = self.found.scheduled[lane].values()
            if lane == "live":
                assert not [at for at in due if at >= IN_A_LINE], "messages stand in a line, unheard"
            soon = min((at for at in due if at < PUT_OFF), default=None)
            told = [self.next_due_ms.get(owner) for owner in self.owners if lane_of(owner) == lane]
            assert soon is None or [at for at in told if at is not None and at <= soon], f"due in {lane}, unheard"

    def _check_nothing_idles(self, lane: Lane) -> None:
        """Check that a fetch which got less than it wanted has left nothing that could run, or rings for it."""
        if self.found.rung[lane]:
            return
        assert not [place for place in self.found.waiting if place[0] == lane], f"a fetch left messages in {lane}"
        left = [at for at in self.found.scheduled[lane].values() if at <= self.now_ms or at >= IN_A_LINE]
        assert not left, f"a fetch left {len(left)} messages in {lane} that are due, or stand in a line"

    def _in_line(self) -> Counter[str]:
        return Counter(
            str(self.sent[id_].customer) for id_, at in self.found.scheduled["live"].items() if at >= IN_A_LINE
        )

    def _check_served(self, before: Keyspace, in_line: Counter[str], granted: list[str]) -> None:
        """Check that of two customers who both wait all the time neither is served by more than two turns more."""
        waiting, left = before.scheduled["live"], self.found.scheduled["live"]
        for id_ in granted:
            if id_ in waiting:  # else it was in a list, and costs no turn
                customer = self.sent[id_].customer
                self.served[str(customer)] += 1
                line = [other for other, at in waiting.items() if IN_A_LINE <= at < waiting[id_]]
                stayed = [other for other in line if left.get(other) == waiting[other]]
                early = [other for other in stayed if self.sent[other].customer == customer]
                assert not early, f"{id_} was served before {early}, of the same line"
        all_along = [customer for customer in in_line if self._in_line()[customer] and customer in self.served]
        for customer in set(map(str, CUSTOMERS)) - set(all_along):
            # One that has not waited all the time begins anew, with as much as the one that got least.
            self.served[customer] = min((self.served[other] for other in all_along), default=0)
        spread = [self.served[customer] for customer in all_along]
        assert not spread or max(spread) - min(spread) <= 2, f"customers that waited were served {self.served}"

    def _drain(self) -> None:
        """From any state, what workers, sweepers and schedulers do ends everything, each callback sent once."""
        self.history.append("drain")
        administration.resume(self.family)
        for field_ in sorted(self.paused):
            administration.resume_actor(self.family, field_)
        self.batches.make(BATCH)
        if self.members:
            self.batches.note(BATCH, "closed")
        self._check("drain")
        for _ in range(MOST_ROUNDS):
            for owner in self.owners:
                self._fetch(owner, 4, [])
                self._ack(owner, [lease for lease in self.grants if lease.owner == owner])
                self._check("drain")
            places = Counter(where[0] for where in self.found.places().values())
            if not any(places[state] for state in UNFINISHED):
                if all(id_ in self.sent for id_ in self._callbacks_due()):
                    break
                self.batches.look_again(BATCH, -60_000)
                self.count_batches(may_die=False)
                self._check("count_batches")
            self._advance(700)
            self.sweep()
        invariants.drained(self.found)
        assert not [key for key in (self.family.keys.turns, self.family.keys.slots) if key in self.found.raw]
        self._check_batch()

    def _callbacks_due(self) -> list[str]:
        outcomes = [member.outcome for member in self.members.values()]
        names = ["on_complete"] if outcomes else []
        names += ["on_success"] if outcomes and set(outcomes) == {"done"} else []
        names += ["on_failure"] if "failed" in outcomes else []
        return [callback_id(BATCH, name) for name in names]

    def _check_batch(self) -> None:
        if not self.members:
            return
        figures = self.batches.count(BATCH)
        outcomes = Counter(member.outcome for member in self.members.values())
        counted = {"done": figures.done, "failed": figures.failed, "cancelled": figures.cancelled, "": figures.open}
        assert +Counter(counted) == +outcomes, f"the batch counted {counted}, its members ended {outcomes}"
        may = {*self._callbacks_due()}
        if any(member.failed_once for member in self.members.values()):
            may.add(callback_id(BATCH, "on_failure"))
        assert set(self._callbacks_due()) <= set(self.callbacks) <= may, f"callbacks {self.callbacks}, due {may}"
        assert set(self.callbacks.values()) <= {1}, f"callbacks sent twice: {self.callbacks}"


def _burning(call: Callable[..., Any], burn: Callable[[], None]) -> Callable[..., Any]:
    """Return a call before and after which the scheduler may be killed."""

    def burning(*args: Any, **options: Any) -> Any:
        burn()
        answer = call(*args, **options)
        burn()
        return answer

    return burning


def walk(bench: Bench, examples: int, *, steps: int = 40) -> Counter[str]:
    """Run some examples, the same each time; return how often each step was taken.

    Raises:
        AssertionError: a promise is broken.
    """
    taken: Counter[str] = Counter()
    with bench.scripts.in_place(), mock.patch.object(counting, "log"):
        for seed in range(examples):
            example = Walk(bench, seed)
            example.run(steps)
            taken.update(example.history)
    return taken
