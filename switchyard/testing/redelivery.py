"""Runs each waiting message as it may happen in production: to its end in a worker that is then killed, and again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from unittest import mock

from django.apps import apps
from django.core import mail
from django.core.files.storage import Storage, storages
from django.db import connections, models, router
from django.utils import timezone
from dramatiq.message import Message

from switchyard.broker import clock
from switchyard.middleware.outcomes import outcome_of
from switchyard.testing.broker import MemoryBroker, SentMessage, StoredMessage
from switchyard.testing.commits import run_callbacks
from switchyard.testing.running import MOST_ATTEMPTS, Runner, endless_run
from switchyard.testing.steps import described
from switchyard.testing.yard import active

# Primary key -> all columns.
Rows = dict[Any, tuple[Any, ...]]
# Storage and name -> digest of the content.
Files = dict[tuple[str, str], str]
STATIC_FILES = "staticfiles"
RESULT = "result."
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Effects:
    """A state of everything that is compared.

    Args:
        mails: Recipients and subject of each mail in ``django.core.mail.outbox``.
        messages: What was sent by tasks, as text.
    """

    rows: dict[Table, Rows]
    files: Files
    mails: tuple[str, ...]
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is compared.

    Args:
        key: Places of the primary key among the columns.
        query: Reads all rows.
    """

    alias: str
    name: str
    columns: tuple[str, ...]
    key: tuple[int, ...]
    query: str

    @classmethod
    def of(cls, alias: str, model: type[models.Model]) -> Table:
        """Return the table of a model. Its rows are compared as the database returns them."""
        quote = connections[alias].ops.quote_name
        columns = tuple(str(field.column) for field in model._meta.concrete_fields)
        query = f"SELECT {', '.join(map(quote, columns))} FROM {quote(model._meta.db_table)}"  # noqa: S608  of models
        key = tuple(columns.index(str(field.column)) for field in model._meta.pk_fields)
        return cls(alias, model._meta.db_table, columns, key, query)


def tables() -> list[Table]:
    return [Table.of(alias, model) for alias, model in _models()]


def require_known(ignored: frozenset[str], compared: list[Table]) -> None:
    """Refuse names of columns that no table has. Keys of results (``result.key``) are known only later.

    Raises:
        ValueError: with the first of them, and the name that was most likely meant.
    """
    columns = {name for table in compared for column in table.columns for name in (column, f"{table.name}.{column}")}
    for name in sorted(ignored - columns):
        if not name.startswith(RESULT):
            near = get_close_matches(name, columns, n=1)
            meant = f"did you mean {near[0]!r}?" if near else "write column, table.column or result.key"
            raise ValueError(f"ignore: no table has a column {name!r}; {meant}")


def read(messages: tuple[str, ...], compared: list[Table]) -> Effects:
    """Read the state: tables, every storage that can be listed, and the outbox."""
    rows: dict[Table, Rows] = {}
    for table in compared:
        with connections[table.alias].cursor() as cursor:
            cursor.execute(table.query)
            rows[table] = {_key_of(table, row): tuple(row) for row in cursor.fetchall()}
    outbox = getattr(mail, "outbox", [])
    mails = tuple(f"{sent.subject!r} to {', '.join(sent.recipients())}" for sent in outbox)
    return Effects(rows, dict(_files()), mails, messages)


def differences(before: Effects, after: Effects, *, ignored: frozenset[str] = frozenset()) -> list[str]:
    """Return in words what changed between two states.

    Args:
        ignored: Columns that are not compared, as ``table.column`` or ``column``.
    """
    found: list[str] = []
    for table, rows in after.rows.items():
        found += _of_table(table, before.rows.get(table, {}), rows, ignored)
    for name, old, new in (("sent the mail", before.mails, after.mails), ("enqueued", before.messages, after.messages)):
        more = Counter(new) - Counter(old)
        found += [f"{name} {text}" + (f" {count} times" if count > 1 else "") for text, count in more.items()]
    for file in before.files.keys() | after.files.keys():
        old_digest, new_digest = before.files.get(file), after.files.get(file)
        if old_digest != new_digest:
            act = "wrote" if old_digest is None else "deleted" if new_digest is None else "changed"
            found.append(f"{act} the file {file[1]}")
    return found


def _of_table(table: Table, before: Rows, after: Rows, ignored: frozenset[str]) -> Iterator[str]:
    for verb, keys in (
        ("added to", [key for key in after if key not in before]),
        ("deleted from", [key for key in before if key not in after]),
    ):
        if keys:
            yield f"{verb} {table.name}: {_rows(keys)}"
    for key in after.keys() & before.keys():
        changed = [
            f"{name} from {old!r:.80} to {new!r:.80}"
            for name, old, new in zip(table.columns, before[key], after[key], strict=True)
            if old != new and name not in ignored and f"{table.name}.{name}" not in ignored
        ]
        if changed:
            yield f"changed {table.name} {key}: {', '.join(changed)}"


def _rows(keys: list[Any]) -> str:
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return f"{len(keys)} row{'s' if len(keys) > 1 else ''}, {', '.join(str(key) for key in keys[:MOST_NAMED])}{more}"


def _models() -> Iterator[tuple[str, type[models.Model]]]:
    there = {alias: set(connections[alias].introspection.table_names()) for alias in connections}
    for model in apps.get_models(include_auto_created=True):
        if not model._meta.managed or model._meta.proxy:
            continue
        for alias in connections:
            if model._meta.db_table in there[alias] and router.allow_migrate_model(alias, model):
                yield alias, model


def _key_of(table: Table, row: Sequence[Any]) -> Any:
    """Return the primary key of a row; of several columns as a tuple."""
    return row[table.key[0]] if len(table.key) == 1 else tuple(row[place] for place in table.key)


def _files() -> Iterator[tuple[tuple[str, str], str]]:
    for place, storage in _storages().items():
        try:
            for name in _names(storage, ""):
                with storage.open(name) as opened:
                    yield (place, name), hashlib.file_digest(opened, "sha256").hexdigest()
        except (NotImplementedError, FileNotFoundError):  # it cannot be listed, or nothing was stored yet
            continue


def _storages() -> dict[str, Storage]:
    """Return the project's storages and those of its file fields, each place once.

    Without MEDIA_ROOT a storage is the folder that the tests run in: code, logs and sockets of what runs there.
    """
    found = [storages[alias] for alias in storages.backends if alias != STATIC_FILES]
    fields = (field for model in apps.get_models() for field in model._meta.concrete_fields)
    found += [field.storage for field in fields if isinstance(field, models.FileField)]
    found = [storage for storage in found if getattr(storage, "base_location", None) != ""]
    return {str(getattr(storage, "location", id(storage))): storage for storage in found}


def _names(storage: Storage, folder: str) -> Iterator[str]:
    folders, files = storage.listdir(folder)
    yield from (f"{folder}{name}" for name in sorted(files))
    for name in sorted(folders):
        yield from _names(storage, f"{folder}{name}/")


@dataclass(frozen=True, slots=True)
class Repetition:
    """Changes that the repetitions of one message made.

    Args:
        call: The message as a call.
        again: What the run after a crash at the end of the first changed, in words.
        twice: What the run after that changed, whose message was acknowledged before.
    """

    actor: str
    call: str
    again: tuple[str, ...]
    twice: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"  {self.call}"]
        for when, found in (
            ("run again after a crash at its end, it", self.again),
            ("delivered once more after that, it", self.twice),
        ):
            lines += [f"    {when} {text}" for text in found]
        return "\n".join(lines)


class NotRepeatable(AssertionError):
    """Actors whose repetition has other effects than one run.

    Attributes:
        actors: Their names.
    """

    def __init__(self, found: list[Repetition], checked: list[str]) -> None:
        self.found = found
        self.actors = sorted({one.actor for one in found})
        listed = "\n".join(str(one) for one in found)
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
        self._broker = broker
        self._runner = runner
        self._ignored = ignored
        self._tables = tables()
        require_known(ignored, self._tables)

    def run(self) -> list[str]:
        """Run everything, and return the names of the actors."""
        run_callbacks()
        found: list[Repetition] = []
        checked: list[str] = []
        while (stored := self._broker.next_ready()) is not None:
            if len(checked) >= MOST_ATTEMPTS:
                raise endless_run(stored.message().actor_name)
            message = stored.message()
            checked.append(message.actor_name)
            repetition = self._repeat(stored, message)
            if repetition.again or repetition.twice:
                found.append(repetition)
        if found:
            raise NotRepeatable(found, checked)
        return sorted(set(checked))

    def _repeat(self, stored: StoredMessage, message: Message[Any]) -> Repetition:
        sent_before = len(self._broker.sent)
        first_result = self._crashing(stored)
        sent_first = list(self._broker.sent[sent_before:])
        first = self._effects()
        second_result = self._ending(stored)
        second = self._effects()
        again = self._differences(first, second, first_result, second_result)
        third_result = self._ending(stored)
        twice = self._differences(second, self._effects(), second_result, third_result)
        self._drop_repeated(sent_before, sent_first)
        call = described(SentMessage(message, by_task=False, delay_ms=None))
        return Repetition(message.actor_name, call, again, twice)

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
        sent = tuple(described(one) for one in self._broker.sent if one.by_task)
        return read(sent, self._tables)

    def _differences(self, before: Effects, after: Effects, old_result: Any, new_result: Any) -> tuple[str, ...]:
        found = differences(before, after, ignored=self._ignored)
        if isinstance(new_result, BaseException):
            found.append(f"raised {type(new_result).__name__}: {new_result}")
        else:
            found += self._of_results(old_result, new_result)
        return tuple(found)

    def _of_results(self, old: Any, new: Any) -> list[str]:
        if not isinstance(old, dict) or not isinstance(new, dict):
            return [] if old == new else [f"returned {new!r:.200}, before {old!r:.200}"]
        names = [name for name in {**old, **new} if f"result.{name}" not in self._ignored]
        changed = [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
        return [f"returned {name}={after!r:.200}, before {name}={before!r:.200}" for name, before, after in changed]

    def _drop_repeated(self, sent_before: int, sent_first: list[SentMessage]) -> None:
        """Forget what repetitions sent again: it would be run and compared as well."""
        first = {one.message.message_id for one in sent_first}
        for one in self._broker.sent[sent_before:]:
            if one.by_task and one.message.message_id not in first:
                self._broker.waiting.pop(one.message.message_id, None)
