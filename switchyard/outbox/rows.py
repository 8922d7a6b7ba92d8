"""The table of the outbox: rows of a transaction that sends messages, deleted once the broker has them."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Max, Min
from dramatiq.actor import Actor
from dramatiq.message import Message
from prometheus_client.core import GaugeMetricFamily, Metric

from switchyard.broker.clock import now_ms
from switchyard.broker.errors import QueueFull
from switchyard.broker.queue import codec
from switchyard.database import aliases_with
from switchyard.middleware.arguments import signature_of
from switchyard.outbox.models import OutboxRow

# A row takes about 1 KB of the database. More means that nothing is relayed: new work is refused, and says so.
MOST_ROWS: Final = 100_000
# Rows are counted once in so many seconds by each process: the ceiling is passed by what is sent meanwhile.
COUNT_EVERY_S: Final = 1.0

DELETED_AT_ONCE: Final = 500

TABLE: Final = OutboxRow._meta.db_table
COLUMNS: Final = ("job_id", "queue", "order_key", "body", "due_ms", "created_ms")

_counted_s: dict[str, float] = {}


def add(
    alias: str,
    messages: Sequence[Message[Any]],
    bodies: Sequence[bytes],
    *,
    due_ms: int | None,
    actors: Mapping[str, Actor[Any, Any]],
) -> list[int]:
    """Write a row for each message into the open transaction; return their ids.

    Raises:
        QueueFull: the table has ``MOST_ROWS``.
    """
    _require_room(alias)
    now = now_ms()
    made = [
        (message.message_id, message.queue_name, order_key(message, actors.get(message.actor_name)), body, due_ms, now)
        for message, body in zip(messages, bodies, strict=True)
    ]
    if len(made) > 1:
        named = [OutboxRow(**dict(zip(COLUMNS, values, strict=True))) for values in made]
        return [row.pk for row in OutboxRow.objects.using(alias).bulk_create(named)]
    # By hand, as the deletion below: what a request pays for, at half of the price.
    with connections[alias].cursor() as cursor:
        places = ", ".join(["%s"] * len(COLUMNS))
        cursor.execute(f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES ({places}) RETURNING id", made[0])  # noqa: S608
        return [row[0] for row in cursor.fetchall()]


def order_key(message: Message[Any], actor: Actor[..., Any] | None) -> str:
    """Return the key within which a message keeps its place: its actor's ``ordered_by`` and the value; "" for none."""
    name = None if actor is None else actor.options.get("ordered_by")
    if actor is None or name is None:
        return ""
    bound = signature_of(actor.fn).bind(*message.args, **message.kwargs)
    bound.apply_defaults()
    return f"{message.actor_name} {name}={bound.arguments.get(name)}"[:300]


def behind_others(alias: str, order_keys: Mapping[int, str]) -> set[int]:
    """Return those of some rows that may not be sent yet: an earlier row of their key, not among them, is there."""
    keys = {row: key for row, key in order_keys.items() if key}
    if not keys:
        return set()
    earlier = OutboxRow.objects.using(alias).filter(order_key__in=set(keys.values()), pk__lt=max(keys))
    held = set(earlier.exclude(pk__in=list(order_keys)).values_list("order_key", flat=True))
    return {row for row, key in keys.items() if key in held}


def is_behind(row: OutboxRow) -> bool:
    """Return whether an earlier row of its key is there still."""
    return bool(behind_others(row._state.db or DEFAULT_DB_ALIAS, {row.pk: row.order_key}))


def are_left(alias: str) -> bool:
    """Return whether a database has rows. It is asked twice a second: a query of the ORM costs ten times as much."""
    with connections[alias].cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {TABLE} LIMIT 1")  # noqa: S608
        return cursor.fetchone() is not None


def delete(alias: str, rows: Sequence[int]) -> None:
    """Delete rows whose messages the broker has. PostgreSQL does not wait for its disk: a row that returns is no harm.

    Raises:
        django.db.DatabaseError: the rows are there still.
    """
    eased = " AND set_config('synchronous_commit', 'off', true) = 'off'"
    more = eased if connections[alias].vendor == "postgresql" else ""
    with connections[alias].cursor() as cursor:
        for start in range(0, len(rows), DELETED_AT_ONCE):
            ids = rows[start : start + DELETED_AT_ONCE]
            places = ", ".join(["%s"] * len(ids))
            cursor.execute(f"DELETE FROM {TABLE} WHERE id IN ({places}){more}", ids)  # noqa: S608


def figures() -> tuple[int, int]:
    """Return how many rows wait in all databases, and the age of the oldest in ms; 0 when none does."""
    count, oldest = 0, None
    for alias in aliases():
        rows = OutboxRow.objects.using(alias)
        count += depth(alias)
        if (first := rows.order_by("id").values_list("created_ms", flat=True).first()) is not None:
            oldest = min(first, oldest or first)
    return count, 0 if oldest is None else max(now_ms() - oldest, 0)


def aliases() -> list[str]:
    return aliases_with(OutboxRow)


def depth(alias: str) -> int:
    """Return the number of rows, up to ``MOST_ROWS`` and one."""
    return OutboxRow.objects.using(alias).order_by()[: MOST_ROWS + 1].count()


def waiting_row(job_id: str) -> OutboxRow | None:
    """Return the row of a job that waits in the outbox, or ``None``."""
    found = (OutboxRow.objects.using(alias).filter(job_id=job_id).first() for alias in aliases())
    return next((row for row in found if row is not None), None)


def waiting_job(job_id: str) -> Message[Any] | None:
    """Return the message of a job that waits in the outbox, or ``None``."""
    row = waiting_row(job_id)
    return None if row is None else message_of(row)


def waiting_ids(job_ids: Sequence[str]) -> set[str]:
    """Return those of some jobs that wait in the outbox."""
    rows = (OutboxRow.objects.using(alias).filter(job_id__in=job_ids) for alias in aliases())
    return {job_id for found in rows for job_id in found.values_list("job_id", flat=True)}


def cancel_waiting(job_id: str) -> bool:
    """Delete a job's row; whether there was one."""
    return any(OutboxRow.objects.using(alias).filter(job_id=job_id).delete()[0] for alias in aliases())


def message_of(row: OutboxRow) -> Message[Any]:
    """Return the message of a row; ``UnreadableMessage`` where another program wrote it."""
    return codec.decode(bytes(row.body), message_id=row.job_id, lane=row.queue)


def _require_room(alias: str) -> None:
    if time.monotonic() < _counted_s.get(alias, 0.0) + COUNT_EVERY_S:
        return
    ends = OutboxRow.objects.using(alias).aggregate(first=Min("id"), last=Max("id"))
    # Ids are given in order: so near to each other there cannot be too many.
    if ends["first"] is not None and ends["last"] - ends["first"] >= MOST_ROWS - 1:
        count = depth(alias)
        if count >= MOST_ROWS:
            remedy = "and see why the broker takes none: manage.py switchyard doctor"
            raise QueueFull("outbox", count, MOST_ROWS, remedy=remedy)
    _counted_s[alias] = time.monotonic()


def outbox_metrics() -> list[Metric]:
    """Return the metric families, and close the connections of this thread."""
    try:
        waiting, oldest_ms = figures()
    finally:
        connections.close_all()
    count = "Messages in the outbox: committed, and not in the broker yet."
    age = "Age of the oldest message in the outbox; 0 when none waits."
    return [
        GaugeMetricFamily("switchyard_outbox_rows", count, value=waiting),
        GaugeMetricFamily("switchyard_outbox_oldest_seconds", age, value=oldest_ms / 1_000),
    ]
