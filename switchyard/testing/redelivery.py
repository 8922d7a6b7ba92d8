"""Runs each waiting message as it may happen in production: to its end in a worker that is then killed, and again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from unittest import mock

from django.apps import apps
from django.core import mail
from django.core.files.storage import Storage, storages
from django.db import connections, models, router
from django.utils import timezone

from switchyard.broker import clock
from switchyard.middleware.outcomes import outcome_of
from switchyard.testing.broker import MemoryBroker, SentMessage, StoredMessage
from switchyard.testing.commits import run_callbacks
from switchyard.testing.running import MOST_ATTEMPTS, Runner, endless_run
from switchyard.testing.steps import described
from switchyard.testing.yard import active

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
