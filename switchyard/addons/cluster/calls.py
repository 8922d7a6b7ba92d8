"""The access to a cluster: every call goes to the node that holds its first key, within the same time budgets.

All keys of a call share a hash tag, so that they are on one node. A node that no longer holds their hash slot answers
``MOVED``: the new place is kept and asked at once. While a slot is being moved, ``ASK`` sends one call to the new node,
and ``TRYAGAIN`` has it wait within its budget. After a failure of a node the slots are read anew from another one.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import AskError, TryAgainError

from switchyard.addons.cluster import ADDON
from switchyard.addons.cluster.hash_slots import (
    FOLLOWED_AT_ONCE,
    NOTHING_DONE,
    Address,
    Asking,
    ClusterClient,
    HashSlotHalfMoved,
    HashSlots,
    is_half_moved,
    key_of,
    slot_of,
    text_of,
)
from switchyard.broker.errors import BrokerError, BrokerRefused, BrokerUnavailable, PlaceChanged
from switchyard.broker.redis.calls import (
    ANSWER_S,
    BUDGET_S,
    PACE,
    Again,
    Budget,
    RedisCalls,
    Way,
    Word,
    ask,
    connect_within,
    left_s,
    read_answer,
)
from switchyard.broker.redis.connections import lone_connection
from switchyard.broker.redis.server_errors import is_away, named, unanswered
from switchyard.broker.stores.history_streams import Step
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.worker.acks import WRITTEN_AT_ONCE, AckBarrier

# For the nodes that answer, while another one uses up the time.
LEAST_S = 0.05


class SlotWay(Way):
    """The way of one call after its first failure: to where the nodes send it.

    Attributes:
        asked: Node that is being given the key's slot, and is asked next.
        giver: Node that is handing the slot over.
    """

    calls: ClusterCalls
    asked: Address | None = None
    giver: Address | None = None
    _redirections = 0

    def acquire(self) -> Any:
        """Return a connection to the node that is to be asked next."""
        return self.calls.acquire(self.key) if self.asked is None else self.calls.acquire_at(self.asked)

    def through(self, connection: Any) -> Any:
        return connection if self.asked is None else Asking(connection)

    def learn(self, error: redis.RedisError, address: Address | None) -> None:
        """Learn where to go on from a failure of the node that was asked."""
        if self.asked is None:  # of one that is being given the slot, a failure says nothing new
            self.giver = address if is_half_moved(error) else None
        self.asked = None
        if isinstance(error, AskError):
            assert address is not None  # noqa: S101  for the type checker: a node sent it
            self.asked = self.calls.slots.redirected(error, address)

    def after(self, error: redis.RedisError, connection: Any, pause_s: float) -> Again | None:
        """Learn where to go on from a failure; ``None`` where the node refused the call for good."""
        done_nothing = isinstance(error, NOTHING_DONE)
        if not done_nothing and not is_away(error):
            return None
        address = None if connection is None else (connection.host, connection.port)
        self.learn(error, address)
        if isinstance(error, AskError):
            self._redirections += 1
            return Again(0.0 if self._redirections <= FOLLOWED_AT_ONCE else pause_s, done_nothing, reached=True)
        if not isinstance(error, TryAgainError):
            self.calls.slots.doubt(address)
            pause_s = max(pause_s, PACE.turn_s())
        return Again(pause_s, done_nothing)

    def given_up(self, name: str, error: redis.RedisError, *, sent: bool) -> BrokerError:
        """Return the error for a call whose time is over."""
        outcome = "unknown" if sent else "refused"
        made: BrokerError
        if self.key is not None and self.giver is not None:
            made = HashSlotHalfMoved(name, slot_of(self.key), text_of(self.giver), outcome=outcome)
        elif isinstance(error, NOTHING_DONE):
            cause = f"its hash slot is being moved or has no node ({type(error).__name__}: {error})"
            made = BrokerUnavailable(name, cause, outcome=outcome)
        else:
            made = unanswered(name, error, self.calls.client, sent=sent)
        made.__cause__ = error
        return made


class ClusterCalls(RedisCalls):
    """Calls scripts on the nodes of a cluster, from any thread or greenlet, also after a fork."""

    _client: ClusterClient
    addon = ADDON
    done_nothing = NOTHING_DONE

    def __init__(self, client: ClusterClient, *, budget_s: float = BUDGET_S, refused_s: float = BUDGET_S) -> None:
        super().__init__(client, budget_s=budget_s, refused_s=refused_s)
        self.slots: HashSlots = client.slots
        self._idle_at: dict[Address, list[Any]] = {}
        self._nodes: dict[Address, RedisCalls] = {}

    @property
    def client(self) -> ClusterClient:
        """The client whose address and TLS are used."""
        return self._client

    def command(self, *words: Word, budget_s: float | None = None) -> Any:
        return self._until(key_of(words), budget_s, str(words[0]), lambda connection, s: ask(connection, words, s))

    def pipeline(
        self, commands: Sequence[Sequence[Word]], *, raise_errors: bool = True, budget_s: float | None = None
    ) -> list[Any]:
        """Send plain commands that may be repeated, those of a node in one round trip, to all nodes at once.

        Without ``raise_errors`` the commands of a node that does not answer get a ``BrokerUnavailable`` each, unless no
        node answers; those whose keys are on two nodes a ``HashSlotHalfMoved``.
        """
        if not commands:
            return []
        budget = Budget(self.budget_s if budget_s is None else budget_s, self.refused_s)
        answers = ClusterPipeline(self, commands, budget).run()
        failed = [answer for answer in answers if isinstance(answer, BrokerError)]
        silent = len(failed) == len(answers) and isinstance(failed[0], BrokerUnavailable)
        if failed and (raise_errors or (silent and not any(isinstance(one, HashSlotHalfMoved) for one in failed))):
            raise next((error for error in failed if isinstance(error, BrokerUnavailable)), failed[0])
        return answers

    def way(self, key: str | bytes | None) -> Way:
        return SlotWay(self, key)

    def acquire(self, key: str | bytes | None = None) -> Any:
        return self.acquire_at(self.slots.master_of(key))

    def acquire_beside(self, used: Any, keys: Sequence[str]) -> Any:
        address = self.slots.master_of(keys[0])
        return used if used is not None and (used.host, used.port) == address else self.acquire_at(address)

    def acquire_at(self, address: Address) -> Any:
        """Return a connection to a node; :meth:`release` it."""
        if self._pid != os.getpid():  # forked: the parent's connections are the parent's
            self._idle_at, self._nodes, self._pid = {}, {}, os.getpid()
        try:
            return self._idle_at[address].pop()
        except (KeyError, IndexError):
            return lone_connection(self._pool, ANSWER_S, host=address[0], port=address[1])

    def release(self, connection: Any) -> None:
        if self._pid == os.getpid():
            self._idle_at.setdefault((connection.host, connection.port), []).append(connection)

    def failed(self, operation: str, error: redis.RedisError, key: str) -> BrokerError:
        """Return this project's error for one on an acquired connection; a slot that moved is asked elsewhere next."""
        if isinstance(error, NOTHING_DONE):
            self.slots.doubt(None)
            return PlaceChanged(operation, f"its hash slot has moved ({error})")
        made = named(operation, error)
        if not isinstance(made, BrokerRefused):
            self.slots.doubt(None)
        return made

    def places(self, *, silent: str = "") -> dict[str, RedisCalls]:
        try:
            if silent:
                self.slots.doubt(next((one for one in self.slots.masters() if text_of(one) == silent), None))
            masters = self.slots.masters()
        except redis.RedisError as error:
            raise unanswered("CLUSTER", error, self.client, sent=False) from error
        return {text_of(address): self._node(address) for address in masters}

    def _node(self, address: Address) -> RedisCalls:
        if address not in self._nodes:
            client = self.client.node(address)
            self._nodes[address] = RedisCalls(client, budget_s=self.budget_s, refused_s=self.refused_s)
        return self._nodes[address]

    def place_of(self, key: str) -> str:
        try:
            return text_of(self.slots.master_of(key))
        except redis.RedisError as error:
            raise unanswered("CLUSTER", error, self.client, sent=False) from error

    def close(self) -> None:
        for idle in list(self._idle_at.values()):
            while idle:
                idle.pop().disconnect()
        for node in self._nodes.values():
            node.close()


class ClusterPipeline:
    """Commands for several nodes, sent to all of them before answers are read; what failed is sent again.

    It has the answers by position, and what is still to be asked until its budget is spent.
    """

    def __init__(self, calls: ClusterCalls, commands: Sequence[Sequence[Word]], budget: Budget) -> None:
        self._calls, self._slots, self._commands = calls, calls.slots, commands
        self._ways = [SlotWay(calls, key_of(words)) for words in commands]
        self._answers: list[Any] = [None] * len(commands)
        self._errors: dict[int, redis.RedisError] = {}
        self._sent: set[int] = set()
        self._budget = budget

    def run(self) -> list[Any]:
        """Return the answers; what failed has its ``BrokerError`` in place. What cannot be sent is given up earlier."""
        left = list(range(len(self._commands)))
        rounds = 0
        while left := self._round(left):
            rounds += 1
            redirected = all(isinstance(self._errors[position], AskError) for position in left)
            wait_s = 0.0 if redirected and rounds <= FOLLOWED_AT_ONCE else self._budget.pause_s()
            if self._budget.ends_within(wait_s, reached=any(map(self._is_reached, left))):
                break
            self._budget.wait(wait_s)
        for position in left:
            way, name = self._ways[position], str(self._commands[position][0])
            self._answers[position] = way.given_up(name, self._errors[position], sent=position in self._sent)
        return self._answers

    def _is_reached(self, position: int) -> bool:
        """Return whether a node may have got a command, or said where it is to be sent."""
        says = self._ways[position].giver is not None or isinstance(self._errors[position], AskError)
        return says or position in self._sent

    def _round(self, left: Sequence[int]) -> list[int]:
        """Send the unanswered commands; return those to send again."""
        groups: defaultdict[tuple[Address, bool], list[int]] = defaultdict(list)
        again: list[int] = []
        for position in left:
            way = self._ways[position]
            try:
                groups[way.asked or self._slots.master_of(way.key), way.asked is not None].append(position)
            except redis.RedisError as error:
                again += self._failed([position], error, None)
        opened: list[tuple[Address, Any, Any, list[int]]] = []
        try:
            for (address, asking), positions in groups.items():
                connection = self._calls.acquire_at(address)
                on = Asking(connection) if asking else connection
                opened.append((address, connection, on, positions))
                try:
                    connect_within(connection, max(left_s(self._budget.give_up_s), LEAST_S))
                    packed = on.pack_commands([self._commands[position] for position in positions])
                    connection.send_packed_command(packed, check_health=False)
                except redis.RedisError as error:
                    connection.disconnect()
                    self._slots.doubt(address)
                    again += self._failed(positions, error, address)
                    positions.clear()
            for each in opened:
                again += self._read(*each)
        except BaseException:  # such as a time limit: answers may still be to come
            for _, connection, _, _ in opened:
                connection.disconnect()
            raise
        finally:
            for _, connection, _, _ in opened:
                self._calls.release(connection)
        return again

    def _read(self, address: Address, connection: Any, on: Any, positions: Sequence[int]) -> list[int]:
        """Read the answers of one node, and return the positions of those that are to be asked for again."""
        again: list[int] = []
        for at, position in enumerate(positions):
            timeout_s = min(max(left_s(self._budget.give_up_s), LEAST_S), ANSWER_S)
            try:
                self._answers[position] = read_answer(on, timeout_s)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                connection.disconnect()
                self._slots.doubt(address)
                self._sent.update(positions[at:])
                return again + self._failed(positions[at:], error, address)
            except redis.ResponseError as error:
                if not isinstance(error, NOTHING_DONE) and not is_away(error):
                    self._answers[position] = named(str(self._commands[position][0]), error)
                    continue
                again += self._failed([position], error, address)
                if not isinstance(error, (AskError, TryAgainError)):
                    self._slots.doubt(address)
        return again

    def _failed(self, positions: Sequence[int], error: redis.RedisError, address: Address | None) -> list[int]:
        """Note an error of some commands, and return their positions."""
        for position in positions:
            self._errors[position] = error
            self._ways[position].learn(error, address)
        return list(positions)


class QueueBarrier(AckBarrier):
    """Writes the steps of each queue by themselves, those last that may have to wait for a node that is away."""

    def __init__(self, records: JobRecords) -> None:
        super().__init__(records)
        # By queue: the last flush that wrote all of it; the same, where its node did not answer since; the lock of the
        # thread that writes it.
        self._wrote: dict[str, int] = {}
        self._behind: dict[str, int] = {}
        self._writing_queue: dict[str, threading.Lock] = {}

    @property
    def in_background(self) -> bool:
        """Whether a thread writes what is noted, without a call of :meth:`flush`, and no node is away."""
        return super().in_background and not self._behind

    def written_of(self, queue: str) -> int:
        return max(self._wrote.get(queue, 0), self._behind.get(queue, self.written))

    def _write(self, began_before_s: float, number: int, queue: str) -> bool:
        with self._writing:
            self._gather(began_before_s)
            queues = {queue} if queue else {step.queue for step in self._steps.values()} | {*self._behind}
        failed: BrokerUnavailable | None = None
        for each in sorted(queues, key=self._may_wait):
            try:
                self._write_queue(each, number)
            except BrokerUnavailable as error:
                failed = error
        if failed is not None:
            if not queue:
                with self._beginning:
                    self.written = max(self.written, number)
            raise failed
        return not queue

    def _may_wait(self, queue: str) -> bool:
        return queue in self._behind or (queue in self._writing_queue and self._writing_queue[queue].locked())

    def _write_queue(self, queue: str, number: int) -> None:
        """Write all steps of a queue; also waits for those that another thread is writing."""
        with self._writing_queue.setdefault(queue, threading.Lock()):
            with self._writing:
                steps = [step for step in self._steps.values() if step.queue == queue]
            try:
                for start in range(0, len(steps), WRITTEN_AT_ONCE):
                    self._records.write(steps[start : start + WRITTEN_AT_ONCE])
                    with self._writing:
                        self._drop(steps[start : start + WRITTEN_AT_ONCE])
            except BrokerUnavailable:
                self._behind.setdefault(queue, self.written)
                raise
            self._wrote[queue] = max(self._wrote.get(queue, 0), number)
            self._behind.pop(queue, None)

    def _drop(self, written: list[Step]) -> None:
        """Drop steps that were written, but for jobs whose next step was gathered meanwhile."""
        for step in written:
            if self._steps.get(step.job_id) is step:
                self._steps.pop(step.job_id, None)
