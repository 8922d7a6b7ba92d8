"""Progress and figures of the retention, and the files that are to be removed."""

from django.db import models


class KindState(models.Model):
    """One kind as its last run found it, and how far the run that goes on has come."""

    name = models.CharField(max_length=40, primary_key=True)
    count = models.PositiveBigIntegerField(default=0, help_text="Rows, or files, that are kept.")
    size_bytes = models.PositiveBigIntegerField(null=True, help_text="Of their files; empty for rows without files.")
    oldest_at = models.DateTimeField(null=True)
    removed = models.PositiveBigIntegerField(default=0, help_text="Rows and files that the last run removed.")
    ended_at = models.DateTimeField(null=True, help_text="End of the last run that came to an end.")
    error = models.CharField(max_length=300, blank=True, help_text="Why the last run did not come to an end.")

    run = models.BigIntegerField(default=0, help_text="Number of the last run; an earlier one ends when it sees that.")
    done = models.BooleanField(default=False, help_text="The last run has come to an end.")
    cursor = models.CharField(max_length=1024, blank=True, help_text="Last file that the run has looked at.")
    walked = models.JSONField(default=dict, help_text="Figures of the files up to the cursor.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class FileRemoval(models.Model):
    """A file to remove. Written with the removal of the row that named it, so that a kill in between loses no file."""

    name = models.CharField(max_length=1024, unique=True, help_text="Name in the storage.")

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
