"""Jobs as the admin knows them. Their records live in the broker; there is no table."""

from __future__ import annotations

from django.db import models


class Job(models.Model):
    """A place in the admin, and the permissions of those who look at jobs and cancel them."""

    id = models.CharField(primary_key=True, max_length=36)

    class Meta:
        managed = False
        default_permissions = ("view",)
        permissions = [("cancel_job", "Can cancel job")]

    def __str__(self) -> str:
        return self.id
