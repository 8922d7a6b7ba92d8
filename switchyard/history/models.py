"""Database rows of the history: jobs, attempts that failed, and the values that jobs are found by.

Times are milliseconds since the epoch, as in job records. Only the history writer writes these rows.
"""

from django.db import models
from django.db.models import Q


def _index(name: str, *order: str, partial: bool = False) -> models.Index:
    condition = Q((f"{name}__isnull", False)) if partial else None
    return models.Index(fields=(name, *order, "id"), condition=condition, name=f"history_{name.removesuffix('_at')}")


class _Ran(models.Model):
    """Columns of an attempt, which a job has of its last one. Those of the error are of the last that failed."""

    generation = models.PositiveIntegerField()
    state = models.CharField(max_length=16)
    reason = models.CharField(max_length=32, blank=True)
    lane = models.CharField(max_length=80)
    pool = models.CharField(max_length=64, blank=True)
    worker = models.CharField(max_length=255, blank=True)
    release = models.CharField(max_length=64, blank=True)
    started_at = models.BigIntegerField(null=True)
    finished_at = models.BigIntegerField()
    error_type = models.CharField(max_length=255, blank=True)
    error_message = models.CharField(max_length=500, blank=True)

    class Meta:
        abstract = True


class JobRow(_Ran):
    """One job as its last known attempt left it.

    ``state`` is ``retrying`` while a failed attempt waits to be retried; the job may have gone on since.
    ``error_*``, ``fingerprint`` and ``failed_at`` are those of the last failure, also when a later attempt succeeded.
    Each filter has an index that ends with the order of the list; :mod:`switchyard.history.queries` chooses it.
    """

    job_id = models.CharField("job", max_length=200, unique=True)
    # Grows with requeues, attempts and states: see broker.stores.job_records.sequence.
    sequence = models.BigIntegerField()
    actor = models.CharField(max_length=255)
    queue = models.CharField(max_length=64)
    # NULL where there is none: the partial indexes below leave those rows out.
    owner = models.CharField(max_length=200, null=True, blank=True)
    attempts = models.PositiveIntegerField()
    enqueued_at = models.BigIntegerField(null=True)
    # ``finished_at`` of a job that is not succeeded, else NULL.
    not_succeeded_at = models.BigIntegerField(null=True)
    wait_ms = models.BigIntegerField(null=True)
    run_ms = models.BigIntegerField(null=True)
    failed_at = models.BigIntegerField(null=True)
    fingerprint = models.CharField(max_length=64, null=True, blank=True)
    parent = models.CharField(max_length=200, null=True, blank=True)
    request_id = models.CharField(max_length=200, blank=True)
    user = models.CharField(max_length=200, blank=True)
    schedule = models.CharField(max_length=255, blank=True)
    tags = models.JSONField(default=list)
    # Redacted, as JSON text of at most 1 KiB; longer ones are cut, and no JSON then.
    arguments = models.TextField(blank=True)
    # JSON text of at most 1 KiB; empty where none is kept or it is longer.
    result = models.TextField(blank=True)
    # Place of a result that a store keeps; NULL for all others, so that adding the column rewrote no row.
    kept_in = models.CharField(max_length=255, null=True, blank=True)

    class Meta:
        ordering = ("-finished_at", "-id")
        default_permissions = ()
        indexes = (
            _index("finished_at"),
            *(_index(name, "finished_at") for name in ("actor", "queue", "release")),
            # Small: of most jobs these columns are empty.
            *(_index(name, partial=True) for name in ("not_succeeded_at", "failed_at")),
            *(_index(name, "finished_at", partial=True) for name in ("owner", "parent")),
            _index("fingerprint", "failed_at", partial=True),
        )

    def __str__(self) -> str:
        return f"{self.actor} {self.job_id}"


class AttemptRow(_Ran):
    """An attempt that failed, or one whose log lines are kept."""

    job_id = models.CharField("job", max_length=200)
    attempt = models.PositiveIntegerField()
    fingerprint = models.CharField(max_length=64, blank=True)
    logs = models.TextField(blank=True)

    class Meta:
        ordering = ("generation", "attempt")
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(fields=("job_id", "generation", "attempt"), name="history_one_row_an_attempt"),
        )

    def __str__(self) -> str:
        return f"{self.job_id} attempt {self.attempt}"


class SearchValue(models.Model):
    """A value that a job is found by: an argument that its actor names in ``search``, or a tag."""

    name = models.CharField(max_length=100)
    value = models.CharField(max_length=200)
    job_id = models.CharField(max_length=200)
    finished_at = models.BigIntegerField()

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("job_id", "name", "value"), name="history_one_row_a_value"),)
        indexes = (models.Index(fields=("name", "value", "finished_at", "job_id"), name="history_value"),)

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


class FactHour(models.Model):
    """MessagePack of the counts of one subject in one hour since the epoch, as in the broker's ``yard_facts``."""

    subject = models.CharField(max_length=300)
    hour = models.IntegerField()
    counts = models.BinaryField()

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("subject", "hour"), name="history_one_row_an_hour"),)
        indexes = (models.Index(fields=("hour",), name="history_hour"),)

    def __str__(self) -> str:
        return f"{self.subject} {self.hour}"
