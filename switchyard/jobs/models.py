"""Jobs for the admin, without a table, the keys of ``once``, and results that are kept in the database."""

from django.db import models


class Job(models.Model):
    """Admin entry and permissions of jobs. The records are in the broker."""

    id = models.CharField(primary_key=True, max_length=36)

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = [
            ("cancel_job", "Can cancel job"),
            ("run_job", "Can run a job again"),
            ("view_arguments", "Can view the arguments of jobs"),
        ]

    def __str__(self) -> str:
        return self.id


class DoneOnce(models.Model):
    """Key of an effect that was committed once; see ``once``.

    ``job_id`` is the message, ``token`` the lease it was held under. Both are empty if the effect was committed outside
    of a worker.
    """

    key = models.CharField(max_length=200)
    job_id = models.CharField(max_length=200, blank=True)
    token = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()
        # Not "unique": PostgreSQL would get a second index, for searches by a key's beginning.
        constraints = [models.UniqueConstraint(fields=["key"], name="one_row_per_key")]

    def __str__(self) -> str:
        return self.key


class StoredResult(models.Model):
    """Result of a job that its record does not hold."""

    job_id = models.CharField(primary_key=True, max_length=200)
    text = models.TextField()
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.job_id
