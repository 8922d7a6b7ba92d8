"""The functions that tests call. All of them need the broker in memory, see :class:`in_memory`.

:func:`redelivered` runs each message as it may happen in production: to its end in a worker that is killed, and again.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any
from unittest import mock

import dramatiq
from django.apps import apps
from django.core import mail
from django.core.files.storage import Storage, storages
from django.db import connections, models, router
from django.utils import timezone
from dramatiq.actor import Actor
from dramatiq.message import Message

from switchyard.broker import clock
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import UnknownQueue
from switchyard.broker.queue import codec
from switchyard.broker.queue.json_body import kind_of
from switchyard.broker.shapes import DeadLetter
from switchyard.conf import declared_yard
from switchyard.middleware.arguments import require_named, signature_of
from switchyard.middleware.outcomes import outcome_of
from switchyard.testing.broker import MemoryBroker, SentMessage, StoredMessage
from switchyard.testing.running import (
    MOST_ATTEMPTS,
    Runner,
    TestedAttempt,
    advance_with_ticks,
    endless_run,
    run_callbacks,
    seconds_of,
)
from switchyard.testing.yard import active

LONGEST_VALUE = 200
MOST_SHOWN = 10

Call = dict[str, Any]


def actor_for(given: Any) -> Actor[..., Any]:
    """Return an actor, or the actor that runs a task of Django's task API.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(given, Actor):
        return given
    path = getattr(given, "module_path", None)
    if isinstance(path, str):
        found = dramatiq.get_broker().actors.get(path)
        if found is not None:
            return found
        raise TypeError(f"no actor runs the task {path}: is its backend Switchyard's, and was it declared?")
    raise TypeError(f"expected an actor or a task, not {kind_of(given)}: pass the decorated function itself")


def call_of(actor: Actor[..., Any], message: Message[Any]) -> Call:
    """Return the arguments of a message by name; those that fit no signature by place."""
    try:
        bound = signature_of(actor.fn).bind(*message.args, **message.kwargs)
    except TypeError:
        return {**{str(place): value for place, value in enumerate(message.args)}, **message.kwargs}
    call: Call = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            call.update(value)
        else:
            call[name] = list(value) if isinstance(value, tuple) else value
    return call


def described(sent: SentMessage) -> str:
    """Return a sent message as a call, with its queue and delay."""
    message = sent.message
    call = ", ".join([*map(shown, message.args), *(f"{name}={shown(value)}" for name, value in message.kwargs.items())])
    delayed = "" if not sent.delay_ms else f", due after {sent.delay_ms / 1000:g} s"
    return f"{message.actor_name}({call}) in {message.queue_name!r}{delayed}"


def listed(sent: Iterable[SentMessage]) -> str:
    """Return what was sent, one call a line."""
    lines = [f"  {described(one)}" for one in sent]
    if not lines:
        return "Nothing was enqueued in this test."
    more = [f"  … and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
    return "\n".join(["Enqueued in this test:", *lines[:MOST_SHOWN], *more])


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def enqueued(actor: Actor[..., Any] | None = None) -> list[Message[Any]]:
    """Return the messages that wait or are scheduled, in the order in which they run; of one actor, or of all."""
    wanted = None if actor is None else actor_for(actor).actor_name
    run_callbacks()
    waiting = active().yard.broker.waiting.values()
    found = [one.message() for one in sorted(waiting, key=lambda one: (one.ready_ms > now_ms(), one.place))]
    return [message for message in found if wanted is None or message.actor_name == wanted]


def assert_enqueued(
    actor: Actor[..., Any],
    *,
    args: Sequence[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    queue: str | None = None,
    count: int | None = None,
) -> list[Message[Any]]:
    """Assert that an actor was sent in this test, whether it has run meanwhile or not, and return its messages.

    What was registered with ``transaction.on_commit`` counts: its callbacks run first, unless the test is inside of a
    transaction of its own.

    Args:
        args, kwargs: The whole call, compared as it would arrive, by place or by name. By default any call.
        queue: Name of the queue it was sent to. By default any.
        count: How often. By default at least once.

    Raises:
        AssertionError: it was not; with what was sent, and what differs in the nearest of it.
    """
    broker = active().yard.broker
    run_callbacks()
    actor = actor_for(actor)
    if kwargs is not None:
        require_named(actor, kwargs)
    call = None if args is None and kwargs is None else _as_sent(actor, tuple(args or ()), dict(kwargs or {}))
    compared = [(sent, _differences(sent, actor, call, queue)) for sent in broker.sent]
    found = [sent.message for sent, different in compared if not different]
    if found if count is None else len(found) == count:
        return found
    shown_call = "..." if call is None else ", ".join(f"{name}={shown(value)}" for name, value in call.items())
    expected = f"{actor.actor_name}({shown_call})" + ("" if queue is None else f" in {queue!r}")
    times = "at least once" if count is None else f"{count} times" if count != 1 else "once"
    lines = [f"{expected} was expected {times}, it was enqueued {len(found)} times."]
    others = [one for one in compared if one[1]]
    if others and (count is None or len(found) < count):
        nearest, different = min(others, key=lambda one: (one[0].message.actor_name != actor.actor_name, len(one[1])))
        lines.append(f"The nearest: {described(nearest)}: {'; '.join(different)}.")
    raise AssertionError("\n".join([*lines, listed(broker.sent)]))


def _as_sent(actor: Actor[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """Return a call as a message carries it: a tuple becomes a list, a date text."""
    message = actor.message_with_options(args=args, kwargs=kwargs)
    body = codec.entry_of(message, {actor.actor_name: actor}).body
    return call_of(actor, codec.decode(body, message_id=message.message_id, lane=message.queue_name))


def _differences(sent: SentMessage, actor: Actor[..., Any], call: Call | None, queue: str | None) -> list[str]:
    """Return how a message of any actor differs from the expected call, in words; ``None`` expects any call."""
    found = []
    if sent.message.actor_name != actor.actor_name:
        found.append(f"its actor is {sent.message.actor_name}, not {actor.actor_name}")
    if queue is not None and sent.message.queue_name != queue:
        found.append(f"its queue is {sent.message.queue_name!r}, not {queue!r}")
    if call is None:
        return found
    there = call_of(actor, sent.message)
    for name in dict.fromkeys([*call, *there]):
        if name not in there:
            found.append(f"it has no {name}, expected {shown(call[name])}")
        elif name not in call:
            found.append(f"it has {name}={shown(there[name])}, which was not expected")
        elif there[name] != call[name]:
            found.append(f"{name} is {shown(there[name])}, not {shown(call[name])}")
    return found


def assert_nothing_enqueued(actor: Actor[..., Any] | None = None) -> None:
    """Assert that nothing was sent in this test; or nothing of one actor.

    Raises:
        AssertionError: something was.
    """
    broker = active().yard.broker
    wanted = None if actor is None else actor_for(actor).actor_name
    run_callbacks()
    found = [sent for sent in broker.sent if wanted is None or sent.message.actor_name == wanted]
    if found:
        subject = "" if wanted is None else f" for {wanted}"
        raise AssertionError(f"nothing was expected to be enqueued{subject}.\n{listed(found)}")


def run_enqueued(*, queue: str | None = None, raises: bool = True, delayed: bool = False) -> list[TestedAttempt]:
    """Run what waits, and what that sends, in this thread; return the attempts in order.

    Runs the callbacks of ``transaction.on_commit`` first, as :func:`assert_enqueued`. Messages run by priority, then
    in the order in which they became ready.

    Args:
        queue: Run only messages of this queue and of its retry lane.
        raises: Raise what an actor raised, after its attempt has ended as in production: its retry waits, or its dead
            letter is there. With ``False`` failures only take their way: retries, dead letters, alerts.
        delayed: Also run what is due later, such as retries, and move the time on to it; see :func:`advance`.

    Raises:
        AssertionError: messages go on sending messages.
        UnknownQueue: the yard declares no such queue.
    """
    switch = active()
    retry_lanes = {declared.name: declared.retry_lane for declared in declared_yard().queues}
    if queue is not None and queue not in retry_lanes:
        raise UnknownQueue(queue, tuple(retry_lanes))
    lanes = None if queue is None else (queue, retry_lanes[queue])
    attempts = switch.yard.runner.run_ready(lanes, raises=raises)
    while delayed and (
        later := [one.ready_ms for one in switch.yard.broker.in_turn() if lanes is None or one.lane in lanes]
    ):
        switch.clock.advance(max(min(later) - now_ms(), 0) / 1000)
        attempts += switch.yard.runner.run_ready(lanes, raises=raises)
    return attempts


def advance(seconds: float | timedelta, *, schedules: bool = True) -> None:
    """Move the time of this process on until the end of the test: delays, retries, rate limits, ``timezone.now()``.

    Nothing runs by itself: :func:`run_enqueued` runs what is due then. Needs the package ``time-machine``.

    Args:
        seconds: 0 or more; a ``timedelta`` as well.
        schedules: Send periodic actors at each of their times on the way, as the scheduler does; pauses are not read.

    Raises:
        RuntimeError: ``time-machine`` is not installed. TypeError, ValueError: it is no such time.
    """
    switch = active()
    seconds = seconds_of(seconds)
    if schedules:
        run_callbacks()
        advance_with_ticks(switch.clock, seconds)
    else:
        switch.clock.advance(seconds)


def dead_letters(queue: str | None = None) -> list[DeadLetter]:
    """Return the dead letters of a queue, or of all, newest first."""
    yard = active().yard
    names = [one.name for one in yard.yard.queues] if queue is None else [yard.yard.queue_of(queue).name]
    found = [letter for name in names for letter in yard.dead_lists.page(name, cursor=0, limit=10_000).items]
    return sorted(found, key=lambda letter: letter.died_at, reverse=True)


# Primary key -> all columns.
Rows = dict[Any, tuple[Any, ...]]
STATIC_FILES = "staticfiles"
RESULT = "result."
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is compared; ``key`` are the places of its primary key among the columns."""

    alias: str
    name: str
    columns: tuple[str, ...]
    key: tuple[int, ...]
    query: str

    def rows(self) -> Rows:
        """Return the rows as the database has them, by their primary key; of several columns a tuple."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute(self.query)
            found = [tuple(row) for row in cursor.fetchall()]
        return {row[self.key[0]] if len(self.key) == 1 else tuple(row[at] for at in self.key): row for row in found}

    def differences(self, before: Rows, after: Rows, ignored: frozenset[str]) -> Iterator[str]:
        """Yield in words what changed, but for ignored columns: ``table.column`` or ``column``."""
        for verb, keys in (
            ("added to", [key for key in after if key not in before]),
            ("deleted from", [key for key in before if key not in after]),
        ):
            if keys:
                more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
                named = f"{', '.join(str(key) for key in keys[:MOST_NAMED])}{more}"
                yield f"{verb} {self.name}: {len(keys)} row{'s' if len(keys) > 1 else ''}, {named}"
        for key in after.keys() & before.keys():
            changed = [
                f"{name} from {old!r:.80} to {new!r:.80}"
                for name, old, new in zip(self.columns, before[key], after[key], strict=True)
                if old != new and name not in ignored and f"{self.name}.{name}" not in ignored
            ]
            if changed:
                yield f"changed {self.name} {key}: {', '.join(changed)}"


def tables(ignored: frozenset[str]) -> list[Table]:
    """Return every table that has a model.

    Raises:
        ValueError: a name that is ignored is none of a column, with the one that was most likely meant. Keys of results
            (``result.key``) are known only later.
    """
    found: list[Table] = []
    for alias in connections:
        there, quote = connections[alias].introspection.table_names(), connections[alias].ops.quote_name
        for model in apps.get_models(include_auto_created=True):
            meta = model._meta
            if not meta.managed or meta.proxy or meta.db_table not in there:
                continue
            if router.allow_migrate_model(alias, model):
                columns = tuple(str(field.column) for field in meta.concrete_fields)
                query = f"SELECT {', '.join(map(quote, columns))} FROM {quote(meta.db_table)}"  # noqa: S608  of models
                key = tuple(columns.index(str(field.column)) for field in meta.pk_fields)
                found.append(Table(alias, meta.db_table, columns, key, query))
    known = {name for table in found for column in table.columns for name in (column, f"{table.name}.{column}")}
    for name in sorted(ignored - known):
        if not name.startswith(RESULT):
            near = get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]!r}?" if near else "write column, table.column or result.key"
            raise ValueError(f"ignore: no table has a column {name!r}; {meant}")
    return found


def _files() -> Iterator[tuple[tuple[str, str], str]]:
    """Yield place and name, with the digest, of each file of the project's storages and of its file fields, once.

    Without MEDIA_ROOT a storage is the folder that the tests run in: code, logs and sockets of what runs there.
    """
    found = [storages[alias] for alias in storages.backends if alias != STATIC_FILES]
    fields = (field for model in apps.get_models() for field in model._meta.concrete_fields)
    found += [field.storage for field in fields if isinstance(field, models.FileField)]
    found = [storage for storage in found if getattr(storage, "base_location", None) != ""]
    for place, storage in {str(getattr(one, "location", id(one))): one for one in found}.items():
        try:
            for name in _names(storage, ""):
                with storage.open(name) as opened:
                    yield (place, name), hashlib.file_digest(opened, "sha256").hexdigest()
        except (NotImplementedError, FileNotFoundError):  # it cannot be listed, or nothing was stored yet
            continue


def _names(storage: Storage, folder: str) -> Iterator[str]:
    folders, files = storage.listdir(folder)
    yield from (f"{folder}{name}" for name in sorted(files))
    for name in sorted(folders):
        yield from _names(storage, f"{folder}{name}/")


@dataclass(frozen=True, slots=True)
class Effects:
    """A state of all that is compared: rows, digests of files, and in words what was mailed and what tasks sent."""

    rows: dict[Table, Rows]
    files: dict[tuple[str, str], str]
    sent: Counter[str]

    def differences(self, after: Effects, ignored: frozenset[str]) -> list[str]:
        """Return in words what changed since."""
        found: list[str] = []
        for table, rows in after.rows.items():
            found += table.differences(self.rows[table], rows, ignored)
        more = after.sent - self.sent
        found += [text + (f" {count} times" if count > 1 else "") for text, count in more.items()]
        for file in self.files.keys() | after.files.keys():
            before, now = self.files.get(file), after.files.get(file)
            if before != now:
                act = "wrote" if before is None else "deleted" if now is None else "changed"
                found.append(f"{act} the file {file[1]}")
        return found


class NotRepeatable(AssertionError):
    """Actors whose repetition has other effects than one run; ``actors`` are their names."""

    def __init__(self, found: list[tuple[str, str]], checked: list[str]) -> None:
        self.actors = sorted({actor for actor, _ in found})
        listed = "\n".join(text for _, text in found)
        super().__init__(
            f"not safe to repeat, {len(self.actors)} of {len(set(checked))} actors: {', '.join(self.actors)}\n"
            f"{listed}\n"
            "a message is delivered again when its worker is lost; see docs/how-to/do-something-once.md"
        )


def redelivered(*, ignore: Iterable[str] = ()) -> list[str]:
    """Run each waiting message, and what that sends, three times, and compare what the runs leave behind.

    The first run ends in a crash: its task is done, nothing is recorded or acknowledged. The second is the redelivery,
    which ends. The third is one more delivery, as after a lost acknowledgement. After the first run none may change
    anything: rows of the database, mails, files in storages, messages sent by the task, its result.

    ``timezone.now()`` stands still meanwhile, so that a row that is written anew with the time is the same row. An
    actor that depends on other times, or on random numbers, is found different, and is.

    Args:
        ignore: Columns that may change, as ``"updated_at"`` or ``"shop_order.updated_at"``, and keys of results that
            are a ``dict``, as ``"result.unchanged"``.

    Returns:
        Names of the actors that were run, sorted.

    Raises:
        NotRepeatable: the effects differ; it names the actors.
        TypeError, ValueError: ``ignore`` is a text, or names a column that no table has.
        Exception: what an actor raised in its first run.
    """
    yard = active().yard
    if isinstance(ignore, str):
        raise TypeError(f"ignore is a text; write ignore=[{ignore!r}]")
    redelivery = _Redelivery(yard.broker, yard.runner, frozenset(ignore))
    moment = timezone.now()
    with mock.patch.object(timezone, "now", lambda: moment), mock.patch.object(clock, "utc_now", lambda: moment):
        return redelivery.run()


class _Redelivery:
    def __init__(self, broker: MemoryBroker, runner: Runner, ignored: frozenset[str]) -> None:
        self._broker, self._runner, self._ignored = broker, runner, ignored
        self._tables = tables(ignored)

    def run(self) -> list[str]:
        run_callbacks()
        found: list[tuple[str, str]] = []
        checked: list[str] = []
        while (stored := self._broker.next_ready()) is not None:
            message = stored.message()
            if len(checked) >= MOST_ATTEMPTS:
                raise endless_run(message.actor_name)
            checked.append(message.actor_name)
            if changes := self._repeat(stored):
                call = described(SentMessage(message, by_task=False, delay_ms=None))
                found.append((message.actor_name, "\n    ".join([f"  {call}", *changes])))
        if found:
            raise NotRepeatable(found, checked)
        return sorted(set(checked))

    def _repeat(self, stored: StoredMessage) -> list[str]:
        """Run a message three times; return in words what the second run and the third changed."""
        sent_before = len(self._broker.sent)
        first_result = self._crashing(stored)
        sent_first = {one.message.message_id for one in self._broker.sent[sent_before:]}
        first = self._effects()
        second_result = self._ending(stored)
        second = self._effects()
        again = first.differences(second, self._ignored) + self._of_results(first_result, second_result)
        third_result = self._ending(stored)
        twice = second.differences(self._effects(), self._ignored) + self._of_results(second_result, third_result)
        for one in self._broker.sent[sent_before:]:  # what repetitions sent again would be run and compared as well
            if one.by_task and one.message.message_id not in sent_first:
                self._broker.waiting.pop(one.message.message_id, None)
        changes = [f"run again after a crash at its end, it {text}" for text in again]
        return changes + [f"delivered once more after that, it {text}" for text in twice]

    def _crashing(self, stored: StoredMessage) -> Any:
        held = self._broker.hold(stored)
        if held is None:
            raise RuntimeError(f"{stored.id} is not due")
        try:
            return self._runner.run_and_crash(held)
        finally:
            self._broker.reclaim()

    def _ending(self, stored: StoredMessage) -> Any:
        """Deliver the message again, as it was, and run it to its end."""
        self._broker.finished.discard(stored.id)
        self._broker.waiting[stored.id] = stored
        held = self._broker.hold(stored)
        assert held is not None  # noqa: S101  it was due before
        attempt = self._runner.run_one(held)
        if attempt.exception is not None or outcome_of(held).kind != "succeeded":
            self._broker.waiting.pop(stored.id, None)  # the retry is not another message to compare
            return attempt.exception or attempt.outcome
        return attempt.result

    def _effects(self) -> Effects:
        mails = getattr(mail, "outbox", [])
        sent = [f"sent the mail {one.subject!r} to {', '.join(one.recipients())}" for one in mails]
        sent += [f"enqueued {described(one)}" for one in self._broker.sent if one.by_task]
        return Effects({table: table.rows() for table in self._tables}, dict(_files()), Counter(sent))

    def _of_results(self, old: Any, new: Any) -> list[str]:
        if isinstance(new, BaseException):
            return [f"raised {type(new).__name__}: {new}"]
        if not isinstance(old, dict) or not isinstance(new, dict):
            return [] if old == new else [f"returned {new!r:.200}, before {old!r:.200}"]
        names = [name for name in {**old, **new} if f"{RESULT}{name}" not in self._ignored]
        changed = [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
        return [f"returned {name}={after!r:.200}, before {name}={before!r:.200}" for name, before, after in changed]
