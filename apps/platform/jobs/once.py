"""Do something once, however often its job runs: the key of it commits together with its effects, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog
from django.db import connections, transaction
from django.utils import timezone
from dramatiq.middleware import CurrentMessage

from apps.platform.jobs.models import DoneOnce

KEY_CHARACTERS = 200
KEPT = timedelta(days=7)
FORGET_AT_ONCE = 1_000
MOST_BATCHES = 100
# One statement that fails nobody's transaction: whoever meets the key of one that has not ended waits for its end.
INSERT = """
    INSERT INTO switchyard_jobs_doneonce ("key", "job_id", "token", "created_at") VALUES (%s, %s, %s, CURRENT_TIMESTAMP)
    ON CONFLICT ("key") DO NOTHING
"""

log = structlog.get_logger(__name__)


@contextmanager
def once(key: str | None = None, *, using: str = "default") -> Iterator[bool]:
    """Open a transaction and tell whether this is the first that does what ``key`` names.

    What is written to the database in the block commits together with the key; an exception takes back both, and the
    next run is the first again. A second run that comes meanwhile waits for the first one's commit and then is told
    ``False``. Inside another transaction both commit with that one, and the wait lasts until then.

    Only the database is covered: what was sent, stored in a file or asked of another server stays done when the
    transaction is rolled back. Keep the block short; on SQLite it holds up every other writer.

    Keys are forgotten after a week: what is run again after that is done again.

    Args:
        key: 1 to 200 characters, the same for the same effect. By default the job's id, so that there is one effect a
            job, whether it is retried, redelivered or a requeued dead letter: a job with two names them.
        using: Alias of the database that the effects are in.

    Raises:
        ValueError: no key outside of a worker, or one that cannot be kept.
        django.db.OperationalError: the first one took longer than the database's limit for waiting (5 s on PostgreSQL,
            20 s on SQLite); raised in a job, it is retried.
    """
    message = CurrentMessage.get_current_message()
    job_id = "" if message is None else message.message_id
    key = _checked(job_id or None) if key is None else _checked(key)
    lease = getattr(message, "lease", None)  # other brokers have none
    with transaction.atomic(using=using):
        with connections[using].cursor() as cursor:
            cursor.execute(INSERT, [key, job_id, None if lease is None else int(lease.token)])
            is_first = cursor.rowcount == 1
        if not is_first:
            _tell_who(key, using)
        yield is_first


def delete_old_keys(using: str = "default") -> int:
    """Delete a database's keys that are older than a week, a thousand at once and at most 100,000; return how many."""
    old = DoneOnce.objects.using(using).filter(created_at__lt=timezone.now() - KEPT).order_by("created_at")
    forgotten = 0
    for _ in range(MOST_BATCHES):
        doomed = list(old.values_list("pk", flat=True)[:FORGET_AT_ONCE])
        forgotten += DoneOnce.objects.using(using).filter(pk__in=doomed).delete()[0]
        if len(doomed) < FORGET_AT_ONCE:
            break
    return forgotten


def _tell_who(key: str, using: str) -> None:
    row = DoneOnce.objects.using(using).filter(key=key).first()
    if row is not None:  # it may have been forgotten this moment
        log.info("done once before", by=row.job_id, token=row.token, at=row.created_at.isoformat())


def _checked(key: str | None) -> str:
    if key is None:
        raise ValueError('once: there is no job here whose id could be the key; name one, such as once("invoice-17")')
    if not 0 < len(key) <= KEY_CHARACTERS:
        raise ValueError(
            f"once: the key has {len(key)} characters, 1 to {KEY_CHARACTERS} are kept; "
            "use ids, or the SHA-256 of what is longer"
        )
    if "\0" in key:
        raise ValueError("once: the key has a NUL character, which PostgreSQL does not keep; use ids")
    return key
