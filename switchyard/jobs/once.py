"""Database effects that commit at most once, however often their job runs: the key commits together with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import connections, transaction
from django.utils import timezone
from dramatiq.middleware import CurrentMessage

from switchyard.broker.queue.json_body import kind_of
from switchyard.database import aliases_with, delete_old
from switchyard.jobs.models import DoneOnce
from switchyard.loggers import get_logger

KEY_CHARACTERS = 200
KEPT = timedelta(days=7)
# One statement that never fails the transaction; it waits for an uncommitted transaction with the same key.
INSERT = """
    INSERT INTO switchyard_jobs_doneonce ("key", "job_id", "token", "created_at") VALUES (%s, %s, %s, CURRENT_TIMESTAMP)
    ON CONFLICT ("key") DO NOTHING
"""

log = get_logger(__name__)


@contextmanager
def once(key: str | None = None, *, using: str = "default") -> Iterator[bool]:
    """Open a transaction and yield whether it is the first one with ``key``.

    Database writes in the block commit together with the key; an exception rolls back both, and the next run is the
    first again. A concurrent run waits for the first one's commit, or that of its outer transaction, and then gets
    ``False``. Keys are deleted after a week: a run after that applies the effects again.

    Only the database is covered: mails, files and requests to other servers are not undone by a rollback. Keep the
    block short: on SQLite it blocks every other writer.

    Args:
        key: 1 to 200 characters, the same for the same effect. By default the job's id: one effect for each job,
            however often it is retried, redelivered or requeued. A job with two effects needs two keys.
        using: Alias of the database of the effects.

    Raises:
        TypeError, ValueError: no key outside of a worker, or an invalid key.
        django.db.OperationalError: the first transaction outlasted the database's lock timeout (5 s on PostgreSQL,
            20 s on SQLite). Raised in a job, it leads to a retry.
    """
    message = CurrentMessage.get_current_message()
    job_id = "" if message is None else message.message_id
    key = _checked(job_id or None if key is None else key)
    lease = getattr(message, "lease", None)  # other brokers have none
    with transaction.atomic(using=using):
        with connections[using].cursor() as cursor:
            cursor.execute(INSERT, [key, job_id, None if lease is None else int(lease.token)])
            is_first = cursor.rowcount == 1
        # The first one's row may have been deleted meanwhile.
        if not is_first and (row := DoneOnce.objects.using(using).filter(key=key).first()) is not None:
            log.info("done once before", by=row.job_id, token=row.token, at=row.created_at.isoformat())
        yield is_first


def delete_old_keys() -> int:
    """Delete keys older than a week, in each database as many as ``delete_old`` does; return the count."""
    old = DoneOnce.objects.filter(created_at__lt=timezone.now() - KEPT).order_by("created_at")
    return sum(delete_old(old.using(alias)) for alias in aliases_with(DoneOnce))


def _checked(key: str | None) -> str:
    if key is None:
        raise ValueError('once: no job runs here whose id could be the key; pass one, such as once("invoice-17")')
    if not isinstance(key, str):
        raise TypeError(f'once: the key is {kind_of(key)}; write text, such as once("invoice-17")')
    if not 0 < len(key) <= KEY_CHARACTERS:
        remedy = "use ids, or the SHA-256 of longer values"
        raise ValueError(f"once: the key has {len(key)} characters, allowed are 1 to {KEY_CHARACTERS}; {remedy}")
    if "\0" in key:
        raise ValueError("once: the key has a NUL character, which PostgreSQL cannot store; use ids")
    return key
