"""The one access to the server: scripts, commands and pipelines over kept connections, within a time budget.

Operations of queues may be repeated: the server recognises a repeated one (see ``switchyard/broker/lua/queue``). A call
whose answer was lost is sent again until its budget is spent; then its outcome is unknown, and the error says so. What
is not recognised is called with ``repeatable=False``: it waits out its budget, and is repeated over a broken connection
only.

Errors leave this module as :class:`switchyard.broker.errors.BrokerUnavailable` (no answer, or none that serves) or
:class:`switchyard.broker.errors.BrokerRefused` (an error that the server answered), caused by redis-py's error.

Redis-py is loaded by the first connection, so that code which only declares actors does without: what handles its
errors imports it there. It is used by itself by blocking reads of :mod:`switchyard.broker.worker.prefetch` (on a
connection of this module), streams that a browser follows, probes of doctor and of the operations page, and development
tools.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeGuard, TypeVar

from switchyard.addon import Addon
from switchyard.broker.errors import BrokerError, BrokerFull, BrokerRefused, BrokerUnavailable
from switchyard.broker.redis.addresses import Server
from switchyard.broker.redis.own_keys import note, unread
from switchyard.broker.redis.scripts import Script

if TYPE_CHECKING:
    import redis
    from redis.connection import ConnectionPool

    from switchyard.broker.redis.sentinel import Sentinels

T = TypeVar("T")
Word = str | bytes | int

RECONNECT_S = 1.0
APART_S, LONGEST_S = 0.1, 0.4


class Pace:
    """Moments at which threads reconnect after a failure: 100 ms apart, or closer, so that none waits over 400 ms."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def turn_s(self) -> float:
        """Return how many seconds the caller waits before it reconnects."""
        now_s = time.monotonic()
        # Two threads may get the same moment, which does no harm; a lock would be inherited by forks.
        self._next_s = min(max(self._next_s + APART_S, now_s), now_s + LONGEST_S)
        return self._next_s - now_s + random.uniform(0, APART_S / 4)  # noqa: S311  no secret


PACE = Pace()


@cache
def is_timed() -> bool:
    """Return whether redis-py takes a time limit for one answer: before 8.0 it does not."""
    from redis.connection import Connection

    return "timeout" in inspect.signature(Connection.read_response).parameters


def left_s(give_up_s: float) -> float:
    """Return the seconds until a monotonic time, a millisecond at least."""
    return max(give_up_s - time.monotonic(), 0.001)


def connect_within(connection: Any, within_s: float) -> None:
    """Connect a connection that is not connected, in a second at most."""
    connection.socket_connect_timeout = min(within_s, RECONNECT_S)
    connection.socket_timeout = max(connection.socket_connect_timeout / 2, 0.1)  # of the login, and of the database
    connection.connect()


def evaluate(operation: Script, keys: Sequence[str], args: Sequence[Word], connection: Any, answer_s: float) -> Any:
    """Run an operation on a connection. A server that does not know it, new or flushed, is given its text."""
    try:
        return ask(connection, ("EVALSHA", operation.sha, len(keys), *keys, *args), answer_s)
    except Exception as error:
        if not is_unknown_script(error):
            raise
        return ask(connection, ("EVAL", operation.text, len(keys), *keys, *args), answer_s)


def is_of_client(error: BaseException) -> TypeGuard[redis.RedisError]:
    """Return whether an error is redis-py's."""
    from redis.exceptions import RedisError

    return isinstance(error, RedisError)


def is_unknown_script(error: BaseException | None) -> bool:
    """Return whether a server answered that it does not know a script by its hash."""
    from redis.exceptions import NoScriptError

    return isinstance(error, NoScriptError)


def ask(connection: Any, words: Sequence[Word], answer_s: float) -> Any:
    """Send a command and return its answer, waiting ``answer_s`` seconds for it at most."""
    connection.send_packed_command(connection.pack_command(*words), check_health=False)
    return read_answer(connection, answer_s)


def read_answer(connection: Any, within_s: float) -> Any:
    """Return the next answer. ``redis.TimeoutError`` when no byte of it comes within so many seconds."""
    if is_timed():
        return connection.read_response(disable_decoding=True, timeout=within_s)
    if not connection.can_read(timeout=within_s):
        from redis.exceptions import TimeoutError as NoAnswer

        connection.disconnect()
        raise NoAnswer("Timeout reading from socket")
    return connection.read_response(disable_decoding=True)


BUDGET_S = 2.0
# Within the budget a lost answer is asked for once more.
ANSWER_S = 0.9
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.3


class Budget:
    """The time of one call: its pauses grow, and it is shorter until a server has taken the call.

    Args:
        budget_s: Seconds after which the call is given up.
        refused_s: Seconds after which it is given up that no server took.
    """

    def __init__(self, budget_s: float, refused_s: float) -> None:
        began_s = time.monotonic()
        self.give_up_s = began_s + budget_s
        self._refused_s = min(self.give_up_s, began_s + refused_s)
        self._longest_s = FIRST_PAUSE_S

    def pause_s(self) -> float:
        """Return the pause before the next try, in seconds."""
        return random.uniform(self._longest_s / 2, self._longest_s)  # noqa: S311  no secret

    def ends_within(self, wait_s: float, *, reached: bool) -> bool:
        return time.monotonic() + wait_s >= (self.give_up_s if reached else self._refused_s)

    def wait(self, wait_s: float) -> None:
        """Wait before the next try; the pause after it is longer. One that is sent at once changes nothing."""
        if wait_s:
            time.sleep(wait_s)
            self._longest_s = min(2 * self._longest_s, LONGEST_PAUSE_S)


class Again(NamedTuple):
    """How a call goes on after a failure.

    Args:
        wait_s: Seconds until it is sent again.
        done_nothing: The server did nothing, and its connection can be used.
        reached: A server took the call, or said where it is to be sent: it has the whole budget.
    """

    wait_s: float
    done_nothing: bool = False
    reached: bool = False


class Way:
    """The way of one call after its first failure: to the place that its key decides, again and again."""

    def __init__(self, calls: RedisCalls, key: str | bytes | None) -> None:
        self.calls, self.key = calls, key

    def acquire(self) -> Any:
        return self.calls.acquire(self.key)

    def through(self, connection: Any) -> Any:
        """Return that by which the next try is sent on a connection."""
        return connection

    def after(self, error: redis.RedisError, connection: Any, pause_s: float) -> Again | None:
        """Return how the call goes on after a failure; ``None`` where the server refused it for good.

        Args:
            connection: That of the failed try; ``None`` where there was none.
            pause_s: Shortest pause of a server that is away.
        """
        from switchyard.broker.redis.server_errors import is_away

        return Again(max(pause_s, PACE.turn_s())) if is_away(error) else None

    def given_up(self, name: str, error: redis.RedisError, *, sent: bool) -> BrokerError:
        from switchyard.broker.redis.server_errors import unanswered

        return unanswered(name, error, self.calls.client, sent=sent)


class RedisCalls:
    """Calls scripts on one server, from any thread or greenlet, also after a fork.

    Args:
        client: Connected by :func:`switchyard.broker.redis.connections.connect`, or a server that is to be; its
            address and TLS are used, no connection.
        budget_s: Seconds after which a call is given up that names no budget of its own.
        refused_s: Seconds after which a call is given up that could not be sent, for pages that do without.

    Attributes:
        addon: It spreads keys over several places, of which some may fail while others go on; ``None`` for one server.
        done_nothing: Errors of a server that does not hold the keys.
    """

    addon: ClassVar[Addon | None] = None
    done_nothing: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(
        self, client: redis.Redis | Server, *, budget_s: float = BUDGET_S, refused_s: float = BUDGET_S
    ) -> None:
        self.budget_s, self.refused_s = budget_s, refused_s
        self._client = client
        # A server that is not connected yet has none: the settings leave the addresses of sentinels to ``connect``.
        self._sentinels: Sentinels | None = None
        if not isinstance(client, Server):
            self._sentinels = client.connection_pool.connection_kwargs.get("sentinels")
        self._idle: list[Any] = []
        self._pid = os.getpid()

    @property
    def client(self) -> redis.Redis:
        """The client whose address and TLS are used."""
        client = self._client
        if isinstance(client, Server):
            from switchyard.broker.redis.connections import connect

            # Two threads may do so at once: it holds no connection.
            client = self._client = connect(client.url, absence=client.absence)
        return client

    @property
    def _pool(self) -> ConnectionPool:
        return self.client.connection_pool

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
        return self._until(keys[0] if keys else None, budget_s, operation.name, act, repeatable=repeatable)

    def stream(
        self, operation: Script, calls: Iterable[tuple[Sequence[str], Sequence[Word]]], *, budget_s: float | None = None
    ) -> Iterator[Any]:
        """Run an operation on one set of keys and arguments after the other, and yield the answers in order.

        While a server works on one, the next one is made ready and sent, to the same server or to another. ``budget_s``
        are the seconds for each. Raises as :meth:`call`; what was sent before may have been run.
        """
        return CallStream(self, operation, self.budget_s if budget_s is None else budget_s).run(calls)

    def command(self, *words: Word, budget_s: float | None = None) -> Any:
        """Run a plain command that may be repeated, like :meth:`call`."""
        return self._until(None, budget_s, str(words[0]), lambda connection, s: ask(connection, words, s))

    def pipeline(
        self, commands: Sequence[Sequence[Word]], *, raise_errors: bool = True, budget_s: float | None = None
    ) -> list[Any]:
        """Send plain commands that may be repeated in one round trip, and return their answers in order.

        With ``raise_errors`` the first error that the server answers is raised. Otherwise each takes its answer's
        place, as ``BrokerRefused`` or ``BrokerUnavailable``. Raises as :meth:`call`.
        """
        if not commands:
            return []

        def act(connection: Any, answer_s: float) -> list[Any]:
            import redis

            from switchyard.broker.redis.server_errors import named

            connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers: list[Any] = []
            for command in commands:
                try:
                    answers.append(read_answer(connection, answer_s))
                except redis.ResponseError as error:
                    answers.append(error if raise_errors else named(str(command[0]), error))
                except redis.BusyLoadingError as error:  # redis-py has closed the connection: no further answer comes
                    connection.disconnect()
                    if raise_errors:
                        raise
                    return answers + [named(str(later[0]), error) for later in commands[len(answers) :]]
            failed = next((answer for answer in answers if isinstance(answer, redis.RedisError)), None)
            if failed is not None:
                raise failed
            return answers

        return self._until(None, budget_s, str(commands[0][0]), act)

    def look(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Read keys as :meth:`pipeline` does; one of a wrong type is noted, and answered as if it were not there."""
        try:
            return self.pipeline(commands)
        except BrokerRefused as error:
            if not error.wrong_type:
                raise
        answers = self.pipeline(commands, raise_errors=False)
        for at, (command, answer) in enumerate(zip(commands, answers, strict=True)):
            if isinstance(answer, BrokerRefused) and answer.wrong_type:
                note(str(command[1]), "it is of a wrong type")
                answers[at] = unread(command)
            elif isinstance(answer, BrokerError):
                raise answer
        return answers

    def _until(
        self,
        key: str | bytes | None,
        budget_s: float | None,
        name: str,
        act: Callable[[Any, float], T],
        *,
        repeatable: bool = True,
    ) -> T:
        budget = Budget(self.budget_s if budget_s is None else budget_s, self.refused_s)
        sent = False
        way: Way | None = None
        told: redis.RedisError | None = None  # what a server answered says more than a last try that is cut short
        while True:
            sent_before, connection = sent, None
            try:
                connection = self.acquire(key) if way is None else way.acquire()
                within_s = left_s(budget.give_up_s)
                connect_within(connection, within_s)
                sent = True
                on = connection if way is None else way.through(connection)
                return act(on, min(within_s, ANSWER_S) if repeatable else within_s)
            except BaseException as error:
                if not is_of_client(error):  # such as a time limit, raised by another thread: the answer may still come
                    if connection is not None:
                        connection.disconnect()
                    raise
                import redis

                from switchyard.broker.redis.server_errors import named

                if isinstance(error, redis.OutOfMemoryError):
                    if sent_before:  # the answer to an earlier try was lost: it may have happened
                        raise BrokerUnavailable(name, str(error)) from error
                    raise BrokerFull(name, str(error)) from error
                way = way or self.way(key)
                again = way.after(error, connection, budget.pause_s())
                if again is None:
                    raise named(name, error) from error
                is_silent = isinstance(error, redis.TimeoutError)
                if again.done_nothing:
                    sent = sent_before
                elif connection is not None:
                    connection.disconnect()
                shown = told if told and is_silent else error
                if (is_silent and not repeatable) or budget.ends_within(again.wait_s, reached=sent or again.reached):
                    raise way.given_up(name, shown, sent=sent) from error
                told = None if again.done_nothing else shown
            finally:
                if connection is not None:
                    self.release(connection)
            budget.wait(again.wait_s)

    def way(self, key: str | bytes | None) -> Way:
        return Way(self, key)

    def acquire(self, key: str | bytes | None = None) -> Any:
        """Return a connection for the caller alone, to the place of a key, connected or not; :meth:`release` it."""
        if self._pid != os.getpid():  # forked: the parent's connections are the parent's
            self._idle, self._pid = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            from switchyard.broker.redis.connections import lone_connection

            return lone_connection(self._pool, ANSWER_S)

    def release(self, connection: Any) -> None:
        """Put a connection back. One whose answer was not read must be disconnected before."""
        if self._pid == os.getpid():
            self._idle.append(connection)

    def failed(self, operation: str, error: redis.RedisError, key: str) -> BrokerError:
        """Return this project's error for one on an acquired connection, after learning from it."""
        from switchyard.broker.redis.server_errors import named

        return named(operation, error)

    def acquire_beside(self, used: Any, keys: Sequence[str]) -> Any:
        """Return a connection in use where it leads to the place of some keys, else another one."""
        return self.acquire() if used is None else used

    def places(self, *, silent: str = "") -> dict[str, RedisCalls]:
        """Return the access to each server that holds keys, by its place; "" for the only one.

        ``silent`` is a place whose server did not answer just now: another one may have replaced it.
        """
        return {"": self}

    def place_of(self, key: str) -> str:
        return ""

    def close(self) -> None:
        """Close the idle connections."""
        with contextlib.suppress(IndexError):  # none is left: other threads may acquire some meanwhile
            while True:
                self._idle.pop().disconnect()


@dataclass(slots=True)
class _InFlight:
    """A call of a stream, and the connection that it was sent on and that its answer comes from, where there is one."""

    keys: Sequence[str]
    args: Sequence[Word]
    connection: Any = None
    sent: bool = False


class CallStream:
    """A stream of calls, each with a budget in seconds, of which two are under way at most."""

    def __init__(self, calls: RedisCalls, operation: Script, budget_s: float) -> None:
        self._calls, self._operation, self._budget_s = calls, operation, budget_s
        self._flying: deque[_InFlight] = deque()

    def run(self, calls: Iterable[tuple[Sequence[str], Sequence[Word]]]) -> Iterator[Any]:
        flying = self._flying
        try:
            for keys, args in calls:
                give_up_s = time.monotonic() + self._budget_s
                self._send_ahead(_InFlight(keys, args))
                if len(flying) > 1:
                    yield self._next_answer(give_up_s)
            while flying:
                yield self._next_answer(time.monotonic() + self._budget_s)
        finally:
            for connection in {id(one.connection): one.connection for one in flying if one.connection}.values():
                connection.disconnect()
                self._calls.release(connection)

    def _send_ahead(self, one: _InFlight) -> None:
        import redis

        from switchyard.broker.redis.server_errors import AWAY

        used = self._flying[-1].connection if self._flying else None
        self._flying.append(one)
        try:
            connection = self._calls.acquire_beside(used, one.keys)
        except redis.RedisError:
            return
        try:
            connect_within(connection, RECONNECT_S)
            command = ("EVALSHA", self._operation.sha, len(one.keys), *one.keys, *one.args)
            connection.send_packed_command(connection.pack_command(*command), check_health=False)
        except AWAY:
            self._break(connection)
            self._calls.release(connection)
        else:
            one.connection, one.sent = connection, True

    def _next_answer(self, give_up_s: float) -> Any:
        """Return the answer to the oldest call; one that its server did not carry out is made anew, by itself."""
        from switchyard.broker.redis.server_errors import is_away, named

        one = self._flying.popleft()
        connection, done_nothing = one.connection, not one.sent
        if connection is not None:
            try:
                return read_answer(connection, min(left_s(give_up_s), ANSWER_S))
            except BaseException as error:
                done_nothing = is_unknown_script(error) or isinstance(error, self._calls.done_nothing)
                if not done_nothing:
                    self._break(connection)
                    if not is_of_client(error):
                        raise
                    if not is_away(error):  # full is refused too
                        raise named(self._operation.name, error) from error
            finally:
                if all(other.connection is not connection for other in self._flying):
                    self._calls.release(connection)
        try:
            return self._calls.call(self._operation, one.keys, one.args, budget_s=left_s(give_up_s))
        except BrokerUnavailable as error:
            if not done_nothing and error.outcome == "refused":  # the answer to the first try was lost
                raise error.after_a_lost_answer() from error.__cause__
            raise

    def _break(self, connection: Any) -> None:
        """Close a connection: no answer comes from it any more."""
        connection.disconnect()
        for one in self._flying:
            if one.connection is connection:
                one.connection = None


Call = tuple[Sequence[str], Sequence[Word]]


def call_together(calls: RedisCalls, operation: Script, batches: Sequence[Call], *, partly: bool = False) -> list[Any]:
    """Run an operation that may be repeated once for each set of keys and arguments, and return the answers in order.

    Raises as :meth:`switchyard.broker.redis.calls.RedisCalls.call`, for the first call that failed. The others were
    run.

    Args:
        partly: Return the ``BrokerUnavailable`` of a node that does not answer, and the error for a key of a wrong
            type, in place of the answers as well.
    """
    by_name = [("EVALSHA", operation.sha, len(keys), *keys, *args) for keys, args in batches]
    answers = calls.pipeline(by_name, raise_errors=False)
    if any(isinstance(answer, BrokerError) and is_unknown_script(answer.__cause__) for answer in answers):
        # A server knows it for all calls or for none.
        whole = [("EVAL", operation.text, len(keys), *keys, *args) for keys, args in batches]
        answers = calls.pipeline(whole, raise_errors=False)
    for answer in answers:
        tolerated = isinstance(answer, BrokerUnavailable) or (isinstance(answer, BrokerRefused) and answer.wrong_type)
        if isinstance(answer, BrokerError) and not (partly and tolerated):
            raise answer
    return answers


def calls_on(client: redis.Redis | Server, *, budget_s: float = BUDGET_S, refused_s: float = BUDGET_S) -> RedisCalls:
    """Return the access over a client's address; see :class:`switchyard.broker.redis.calls.RedisCalls`."""
    addon: Addon | None = getattr(client, "addon", None)  # redis-py's own client has none
    kind = (addon and addon.load("calls")) or RedisCalls
    calls: RedisCalls = kind(client, budget_s=budget_s, refused_s=refused_s)
    return calls
