"""The access to a cluster: every call goes to the node that holds its first key, within the same time budgets.

All keys of a call share a hash tag, so that they are on one node. A node that no longer holds their hash slot answers
``MOVED``: the new place is kept and asked at once. While a slot is being moved, ``ASK`` sends one call to the new node,
and ``TRYAGAIN`` has it wait within its budget. After a failure of a node the slots are read anew from another one.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import redis
from redis.exceptions import AskError, OutOfMemoryError, TryAgainError

from switchyard.addons.cluster.client import ClusterClient
from switchyard.addons.cluster.hash_slots import (
    FOLLOWED_AT_ONCE,
    NOTHING_DONE,
    Address,
    Asking,
    HashSlots,
    is_half_moved,
    key_of,
    slot_of,
    text_of,
)
from switchyard.addons.cluster.pipeline import ClusterPipeline
from switchyard.addons.cluster.stream import ClusterStream
from switchyard.broker.errors import (
    BrokerError,
    BrokerFull,
    BrokerRefused,
    BrokerUnavailable,
    HashSlotHalfMoved,
    HashSlotMoved,
)
from switchyard.broker.redis.calls import ANSWER_S, BUDGET_S, FIRST_PAUSE_S, LONGEST_PAUSE_S, RedisCalls
from switchyard.broker.redis.connections import lone_connection
from switchyard.broker.redis.exchange import Word, ask, connect_within, evaluate, left_s
from switchyard.broker.redis.pace import PACE
from switchyard.broker.redis.scripts import Script
from switchyard.broker.redis.server_errors import is_away, named, unanswered

T = TypeVar("T")


class ClusterCalls(RedisCalls):
    """Calls scripts on the nodes of a cluster, from any thread or greenlet, also after a fork.

    Args:
        client: Connected by :func:`switchyard.broker.redis.connections.connect`; its slots are shared.
        budget_s: As in :class:`switchyard.broker.redis.calls.RedisCalls`.
        refused_s: Likewise.
    """

    client: ClusterClient
    spread = True

    def __init__(self, client: ClusterClient, *, budget_s: float = BUDGET_S, refused_s: float = BUDGET_S) -> None:
        super().__init__(client, budget_s=budget_s, refused_s=refused_s)
        self._slots: HashSlots = client.slots
        self._idle_at: dict[Address, list[Any]] = {}
        self._nodes: dict[Address, RedisCalls] = {}

    def call(
        self,
        operation: Script,
        keys: Sequence[str],
        args: Sequence[Word],
        *,
        budget_s: float | None = None,
        repeatable: bool = True,
    ) -> Any:
        """Run an operation on the node of its keys; see :meth:`switchyard.broker.redis.calls.RedisCalls.call`."""
        act = partial(evaluate, operation, keys, args)
        return self._at(keys[0], budget_s, operation.name, act, repeatable=repeatable)

    def command(self, *words: Word, budget_s: float | None = None) -> Any:
        """Run a plain command on the node of its key, or on any without one."""
        return self._at(key_of(words), budget_s, str(words[0]), lambda connection, s: ask(connection, words, s))

    def pipeline(
        self, commands: Sequence[Sequence[Word]], *, raise_errors: bool = True, budget_s: float | None = None
    ) -> list[Any]:
        """Send plain commands that may be repeated, those of a node in one round trip, to all nodes at once.

        Args:
            raise_errors: As in :meth:`switchyard.broker.redis.calls.RedisCalls.pipeline`. Otherwise the commands of a
            node that
                does not answer get a ``BrokerUnavailable`` each, unless no node answers; those whose keys are on two
                nodes a ``HashSlotHalfMoved``.
        """
        if not commands:
            return []
        pipeline = ClusterPipeline(self, self._slots, commands, self.budget_s if budget_s is None else budget_s)
        answers = pipeline.run(self.refused_s)
        failed = [answer for answer in answers if isinstance(answer, BrokerError)]
        silent = len(failed) == len(answers) and isinstance(failed[0], BrokerUnavailable)
        if failed and (raise_errors or (silent and not any(isinstance(one, HashSlotHalfMoved) for one in failed))):
            raise next((error for error in failed if isinstance(error, BrokerUnavailable)), failed[0])
        return answers

    def stream(
        self, operation: Script, calls: Iterable[tuple[Sequence[str], Sequence[Word]]], *, budget_s: float | None = None
    ) -> Iterator[Any]:
        """Run an operation on one set of keys and arguments after the other, and yield the answers in order.

        While a node works on one, the next one is made ready and sent, to the same node or to another.
        """
        return ClusterStream(self, self._slots, operation, self.budget_s if budget_s is None else budget_s).run(calls)

    def _at(
        self,
        key: str | bytes | None,
        budget_s: float | None,
        name: str,
        act: Callable[[Any, float], T],
        *,
        repeatable: bool = True,
    ) -> T:
        began_s = time.monotonic()
        deadline = began_s + (self.budget_s if budget_s is None else budget_s)
        pause_s, redirections, sent = FIRST_PAUSE_S, 0, False
        asked: Address | None = None
        giver: Address | None = None
        while True:
            sent_before, address, connection = sent, asked, None
            try:
                address = asked or self._slots.master_of(key)
                connection = self.acquire_at(address)
                within_s = left_s(deadline)
                connect_within(connection, within_s)
                sent = True
                on = connection if asked is None else Asking(connection)
                return act(on, min(within_s, ANSWER_S) if repeatable else within_s)
            except OutOfMemoryError as error:
                if sent_before:  # the answer to an earlier try was lost: it may have happened
                    raise BrokerUnavailable(name, str(error)) from error
                raise BrokerFull(name, str(error)) from error
            except redis.RedisError as error:
                redirected = isinstance(error, AskError)
                if not redirected and not is_away(error):
                    raise named(name, error) from error
                if asked is None:  # of one that is being given the slot, a failure says nothing new
                    giver = address if is_half_moved(error) else None
                asked, wait_s = None, random.uniform(pause_s / 2, pause_s)  # noqa: S311  no secret
                if isinstance(error, NOTHING_DONE):
                    sent = sent_before
                elif connection is not None:
                    connection.disconnect()
                if isinstance(error, AskError):
                    assert address is not None  # noqa: S101  for the type checker: a node sent it
                    asked = self._slots.redirected(error, address)
                    redirections += 1
                    wait_s = 0.0 if redirections <= FOLLOWED_AT_ONCE else wait_s
                else:
                    if not isinstance(error, TryAgainError):
                        self._slots.doubt(address)
                        wait_s = max(wait_s, PACE.turn_s())
                lost = isinstance(error, redis.TimeoutError) and not repeatable
                give_up_s = deadline if sent or redirected else min(deadline, began_s + self.refused_s)
                if lost or time.monotonic() + wait_s >= give_up_s:
                    raise self.given_up(name, error, key, giver, sent=sent) from error
            except BaseException:  # such as a time limit, raised by another thread: the answer may still be to come
                if connection is not None:
                    connection.disconnect()
                raise
            finally:
                if connection is not None:
                    self.release(connection)
            if wait_s:
                time.sleep(wait_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def given_up(
        self, name: str, error: redis.RedisError, key: str | bytes | None, giver: Address | None, *, sent: bool
    ) -> BrokerError:
        """Return the error for a call whose time is over.

        Args:
            giver: The node that is handing the key's slot over, where one said so last.
        """
        outcome = "unknown" if sent else "refused"
        made: BrokerError
        if key is not None and giver is not None:
            made = HashSlotHalfMoved(name, slot_of(key), text_of(giver), outcome=outcome)
        elif isinstance(error, NOTHING_DONE):
            cause = f"its hash slot is being moved or has no node ({type(error).__name__}: {error})"
            made = BrokerUnavailable(name, cause, outcome=outcome)
        else:
            made = unanswered(name, error, self.client, sent=sent)
        made.__cause__ = error
        return made

    def acquire(self, key: str = "") -> Any:
        """Return a connection to the node that holds a key.

        Raises:
            redis.ConnectionError: no node answers.
        """
        return self.acquire_at(self._slots.master_of(key))

    def acquire_at(self, address: Address) -> Any:
        """Return a connection to a node; :meth:`release` it."""
        if self._pid != os.getpid():  # forked: the parent's connections are the parent's
            self._idle_at, self._nodes, self._pid = {}, {}, os.getpid()
        try:
            return self._idle_at[address].pop()
        except (KeyError, IndexError):
            return lone_connection(self._pool, ANSWER_S, host=address[0], port=address[1])

    def release(self, connection: Any) -> None:
        """Put a connection back. One whose answer was not read must be disconnected before."""
        if self._pid == os.getpid():
            self._idle_at.setdefault((connection.host, connection.port), []).append(connection)

    def failed(self, operation: str, error: redis.RedisError, key: str) -> BrokerError:
        """Return this project's error for one on an acquired connection; a slot that moved is asked elsewhere next."""
        if isinstance(error, NOTHING_DONE):
            self._slots.doubt(None)
            return HashSlotMoved(operation, str(error))
        made = named(operation, error)
        if not isinstance(made, BrokerRefused):
            self._slots.doubt(None)
        return made

    def nodes(self, *, silent: str = "") -> dict[str, RedisCalls]:
        """Return the access to each master, by address; its budgets are those of this one.

        Raises:
            BrokerUnavailable: no node answers.
        """
        try:
            if silent:
                self._slots.doubt(next((one for one in self._slots.masters() if text_of(one) == silent), None))
            masters = self._slots.masters()
        except redis.RedisError as error:
            raise unanswered("CLUSTER", error, self.client, sent=False) from error
        return {text_of(address): self._node(address) for address in masters}

    def _node(self, address: Address) -> RedisCalls:
        if address not in self._nodes:
            client = self.client.node(address)
            self._nodes[address] = RedisCalls(client, budget_s=self.budget_s, refused_s=self.refused_s)
        return self._nodes[address]

    def node_of(self, key: str) -> str:
        """Return the address of the master that holds a key.

        Raises:
            BrokerUnavailable: no node answers.
        """
        try:
            return text_of(self._slots.master_of(key))
        except redis.RedisError as error:
            raise unanswered("CLUSTER", error, self.client, sent=False) from error

    def close(self) -> None:
        """Close the idle connections."""
        for idle in list(self._idle_at.values()):
            while idle:
                idle.pop().disconnect()
        for node in self._nodes.values():
            node.close()
