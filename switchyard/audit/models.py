"""Rows of the audit log, one for each act of a person on the yard; and the rights of roles and of groups."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class AuditEntry(models.Model):
    """One act. Written before the act begins, and completed when it is over; never changed afterwards.

    ``begun`` long after ``at`` means that the process ended in the middle: the act may be done in part.
    """

    class Outcome(models.TextChoices):
        BEGUN = "begun", "Begun"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    class Via(models.TextChoices):
        PAGE = "page", "Page"
        API = "api", "API"
        COMMAND = "command", "Command"

    at = models.DateTimeField(default=timezone.now, db_index=True)
    act = models.CharField(max_length=40, help_text="Thing and verb, such as queue.pause.")
    target = models.CharField(max_length=255, blank=True, help_text="Name or id of the thing; empty for several.")
    who = models.CharField(max_length=150)
    via = models.CharField(max_length=16, choices=Via.choices)
    token = models.CharField(max_length=12, blank=True, help_text="Public part of the API token.")
    reason = models.CharField(max_length=500, blank=True)
    detail = models.JSONField(default=dict)
    count = models.PositiveBigIntegerField(null=True, help_text="Things that the act changed.")
    outcome = models.CharField(max_length=8, choices=Outcome.choices, default=Outcome.BEGUN)
    error = models.CharField(max_length=300, blank=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        default_permissions = ("view",)
        verbose_name = "audit entry"
        verbose_name_plural = "audit log"
        indexes = [models.Index(fields=(name, "id"), name=f"audit_by_{name}") for name in ("act", "who", "target")]

    def __str__(self) -> str:
        return f"{self.act} {self.target}".strip()

    def without_value(self) -> AuditEntry:
        """Leave out the argument's value that releases up to 0.10 wrote in it: ``sync with customer_id=7``."""
        if self.act in ("actor.pause", "actor.resume", "circuit.open"):
            self.target = self.target.partition(" with ")[0]
        return self


class GrantedRight(models.Model):
    """A right that a ready role was given once. Whoever takes it away from the role's group keeps it away."""

    role = models.CharField(max_length=64)
    right = models.CharField(max_length=200)

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("role", "right"), name="one_grant_a_role_and_right"),)

    def __str__(self) -> str:
        return f"{self.role}: {self.right}"


class GroupQueues(models.Model):
    """The queues on which the rights of a group hold; of a group without a row they hold on all.

    Names are those of the topology. One that is not declared, or not yet, does no harm.
    """

    group = models.OneToOneField("auth.Group", on_delete=models.CASCADE, related_name="+")
    queues = models.JSONField(default=list, help_text="A queue that is added to the topology is not among them.")

    class Meta:
        verbose_name = verbose_name_plural = "queues of a group"

    def __str__(self) -> str:
        return f"{self.group}: {', '.join(self.queues)}"
