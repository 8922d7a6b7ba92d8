"""Effects of actors: rows, mails, files and messages, compared before and after a run."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from django.apps import apps
from django.core import mail
from django.core.files.storage import Storage, storages
from django.db import connections, models, router

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
    """Return every table that has a model."""
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
