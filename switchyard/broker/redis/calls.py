"""The one access to the server: scripts, commands and pipelines over kept connections, within a time budget.

Operations of queues may be repeated: the server recognises a repeated one (see ``switchyard/broker/lua/queue``). A call
whose answer was lost is sent again until its budget is spent; then its outcome is unknown, and the error says so. What
is not recognised is called with ``repeatable=False``: it waits out its budget, and is repeated over a broken connection
only.

Errors leave this module as :class:`switchyard.broker.errors.BrokerUnavailable` (no answer, or none that serves) or
:class:`switchyard.broker.errors.BrokerRefused` (an error that the server answered), with redis-py's error as their
cause.

Five places use redis-py itself, see their docstrings: blocking reads of :mod:`switchyard.broker.worker.wakeup` (on a
connection of this module), streams that a browser follows, probes of doctor and of the operations page, and development
tools.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import redis
from redis.connection import ConnectionPool
from redis.exceptions import BusyLoadingError, NoScriptError, OutOfMemoryError

from switchyard.broker.errors import BrokerError, BrokerFull, BrokerUnavailable
from switchyard.broker.redis.connections import lone_connection
from switchyard.broker.redis.exchange import RECONNECT_S as RECONNECT_S
from switchyard.broker.redis.exchange import Word as Word
from switchyard.broker.redis.exchange import ask, connect_within, evaluate, left_s, sent_ahead
from switchyard.broker.redis.pace import PACE
from switchyard.broker.redis.scripts import Script
from switchyard.broker.redis.sentinel import Sentinels
from switchyard.broker.redis.server_errors import is_away, named, unanswered

T = TypeVar("T")

BUDGET_S = 2.0
# Within the budget a lost answer is asked for once more.
ANSWER_S = 0.9
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.3


class _Unanswered(NamedTuple):
    """A call whose answer is to come.

    Args:
        sent: It was sent on the first connection.
    """

    keys: Sequence[str]
    args: Sequence[Word]
    sent: bool


class RedisCalls:
    """Calls scripts on one server, from any thread or greenlet, also after a fork.

    Args:
        client: Connected by :func:`switchyard.broker.redis.connections.connect`; its address and TLS are used, no
        connection. budget_s: Seconds after which a call is given up that names no budget of its own. refused_s: Seconds
        after which a call is given up that could not be sent, for pages that do without.

    Attributes:
        spread: Whether keys are spread over several servers, so that some may fail while others go on.
    """

    spread = False

    def __init__(self, client: redis.Redis, *, budget_s: float = BUDGET_S, refused_s: float = BUDGET_S) -> None:
        self.budget_s, self.refused_s = budget_s, refused_s
        self.client = client
        self._pool: ConnectionPool = client.connection_pool
        self._sentinels: Sentinels | None = self._pool.connection_kwargs.get("sentinels")
        self._idle: list[Any] = []
        self._pid = os.getpid()

    @property
    def server_changes(self) -> int:
        """How often another server took over, which may lack what the former one answered."""
        return self._sentinels.changes if self._sentinels else 0

    def call(
        self,
        operation: Script,
        keys: Sequence[str],
        args: Sequence[Word],
        *,
        budget_s: float | None = None,
        repeatable: bool = True,
    ) -> Any:
        """Run an operation and return its answer, with strings as bytes.

        Args:
            budget_s: Seconds until the call is given up; by default the constructor's.
            repeatable: Send it again when no answer came for ``ANSWER_S``. A broken connection is always replaced.

        Raises:
            BrokerUnavailable: no answer within the budget. ``outcome`` is ``refused`` when it was never sent.
            BrokerFull: the server has no memory left, and did nothing.
            BrokerRefused: the server answered with an error, for example because a key is of a wrong type.
        """
        act = partial(evaluate, operation, keys, args)
        return self._until(budget_s, operation.name, act, repeatable=repeatable)

    def stream(
        self, operation: Script, calls: Iterable[tuple[Sequence[str], Sequence[Word]]], *, budget_s: float | None = None
    ) -> Iterator[Any]:
        """Run an operation on one set of keys and arguments after the other, and yield the answers in order.

        While the server works on one, the next one is made ready and sent.

        Args:
            budget_s: Seconds for each; by default those of the constructor.

        Raises:
            As :meth:`call`. What was sent before may have been run.
        """
        budget_s = self.budget_s if budget_s is None else budget_s
        unanswered: deque[_Unanswered] = deque()
        own = self.acquire()
        connection: Any = own
        try:
            for keys, args in calls:
                give_up_s = time.monotonic() + budget_s
                sent = connection is not None and sent_ahead(connection, operation, keys, args)
                unanswered.append(_Unanswered(keys, args, sent))
                if not sent:
                    connection = None
                while len(unanswered) > (1 if connection is not None else 0):
                    answer, connection = self._next_answer(connection, operation, unanswered, give_up_s)
                    yield answer
                    give_up_s = time.monotonic() + budget_s
            while unanswered:
                answer, connection = self._next_answer(connection, operation, unanswered, give_up_s)
                yield answer
                give_up_s = time.monotonic() + budget_s
        finally:
            if unanswered or connection is None:
                own.disconnect()
            self.release(own)

    def _next_answer(
        self, connection: Any, operation: Script, unanswered: deque[_Unanswered], give_up_s: float
    ) -> tuple[Any, Any]:
        """Return the next answer, and the connection unless it broke: then every call is made anew, by itself."""
        if connection is not None:
            try:
                answer = connection.read_response(disable_decoding=True, timeout=min(left_s(give_up_s), ANSWER_S))
            except NoScriptError:
                answer = self.call(operation, *unanswered[0][:2], budget_s=left_s(give_up_s))
            except OutOfMemoryError as error:
                raise BrokerFull(operation.name, str(error)) from error
            except redis.RedisError as error:
                if not is_away(error):
                    raise named(operation.name, error) from error
                connection = None
            else:
                unanswered.popleft()
                return answer, connection
        if connection is None:
            keys, args, sent = unanswered[0]
            try:
                answer = self.call(operation, keys, args, budget_s=left_s(give_up_s))
            except BrokerUnavailable as error:
                if sent and error.outcome == "refused":  # the answer to the first try was lost: it may have happened
                    raise error.after_a_lost_answer() from error.__cause__
                raise
        unanswered.popleft()
        return answer, connection

    def command(self, *words: Word, budget_s: float | None = None) -> Any:
        """Run a plain command that may be repeated, like :meth:`call`."""
        return self._until(budget_s, str(words[0]), lambda connection, s: ask(connection, words, s))

    def pipeline(
        self, commands: Sequence[Sequence[Word]], *, raise_errors: bool = True, budget_s: float | None = None
    ) -> list[Any]:
        """Send plain commands that may be repeated in one round trip, and return their answers in order.

        Args:
            raise_errors: Raise the first error that the server answers. Otherwise each takes its answer's place, as
                ``BrokerRefused`` or ``BrokerUnavailable``.

        Raises:
            As :meth:`call`.
        """
        if not commands:
            return []

        def act(connection: Any, answer_s: float) -> list[Any]:
            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers: list[Any] = []
            for command in commands:
                try:
                    answers.append(connection.read_response(disable_decoding=True, timeout=answer_s))
                except redis.ResponseError as error:
                    answers.append(error if raise_errors else named(str(command[0]), error))
                except BusyLoadingError as error:  # at which redis-py closes the connection: no further answer comes
                    connection.disconnect()
                    if raise_errors:
                        raise
                    return answers + [named(str(later[0]), error) for later in commands[len(answers) :]]
            failed = next((answer for answer in answers if isinstance(answer, redis.RedisError)), None)
            if failed is not None:
                raise failed
            return answers

        return self._until(budget_s, str(commands[0][0]), act)

    def _until(
        self, budget_s: float | None, name: str, act: Callable[[Any, float], T], *, repeatable: bool = True
    ) -> T:
        began_s = time.monotonic()
        deadline = began_s + (self.budget_s if budget_s is None else budget_s)
        pause_s = FIRST_PAUSE_S
        sent = False
        while True:
            sent_before = sent
            connection = self.acquire()
            try:
                within_s = left_s(deadline)
                connect_within(connection, within_s)
                sent = True
                return act(connection, min(within_s, ANSWER_S) if repeatable else within_s)
            except OutOfMemoryError as error:
                if sent_before:  # the answer to an earlier try was lost: it may have happened
                    raise BrokerUnavailable(name, str(error)) from error
                raise BrokerFull(name, str(error)) from error
            except redis.RedisError as error:
                if not is_away(error):
                    raise named(name, error) from error
                connection.disconnect()
                wait_s = max(random.uniform(pause_s / 2, pause_s), PACE.turn_s())  # noqa: S311  no secret
                lost = isinstance(error, redis.TimeoutError) and not repeatable
                give_up_s = deadline if sent else min(deadline, began_s + self.refused_s)
                if lost or time.monotonic() + wait_s >= give_up_s:
                    raise unanswered(name, error, self.client, sent=sent) from error
            except BaseException:  # such as a time limit, raised by another thread: the answer may still be to come
                connection.disconnect()
                raise
            finally:
                self.release(connection)
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def acquire(self, key: str = "") -> Any:
        """Return a connection for the caller alone, connected or not; :meth:`release` it.

        Args:
            key: Of what will be sent: on a cluster it chooses the node.
        """
        if self._pid != os.getpid():  # forked: the parent's connections are the parent's
            self._idle, self._pid = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return lone_connection(self._pool, ANSWER_S)

    def release(self, connection: Any) -> None:
        """Put a connection back. One whose answer was not read must be disconnected before."""
        if self._pid == os.getpid():
            self._idle.append(connection)

    def failed(self, operation: str, error: redis.RedisError, key: str) -> BrokerError:
        """Return this project's error for one on an acquired connection, after learning from it."""
        return named(operation, error)

    def nodes(self, *, silent: str = "") -> dict[str, RedisCalls]:
        """Return the access to each server that holds keys, by address; "" for the only one.

        Args:
            silent: Address of a node that did not answer just now: another one may have replaced it.
        """
        return {"": self}

    def node_of(self, key: str) -> str:
        """Return the address of the server that holds a key, as in :meth:`nodes`."""
        return ""

    def close(self) -> None:
        """Close the idle connections."""
        with contextlib.suppress(IndexError):  # none is left: other threads may acquire some meanwhile
            while True:
                self._idle.pop().disconnect()
