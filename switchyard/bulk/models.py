"""Bulk acts: one act of a person on everything that matches a filter, done by the scheduler in steps."""

from collections import Counter

from django.db import models


class BulkAct(models.Model):
    """One bulk act with its progress.

    A step takes items in hand, applies the act to them, and commits counts and cursor together. The items in hand are
    committed before anything is done to them: whoever finds some there repeats that step, which is harmless.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        RUNNING = "running", "Running"
        STOPPED = "stopped", "Stopped"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    kind = models.CharField(max_length=40, help_text="Name of a kind, such as letter.requeue.")
    filter = models.JSONField(default=dict)
    state = models.CharField(max_length=16, choices=State.choices, default=State.WAITING)
    rate = models.PositiveIntegerField(null=True, help_text="Items a second at most; empty for as fast as it goes.")
    plan = models.JSONField(
        default=dict, null=True, help_text="Of a rollout: items of its canary, share of failures that stops it."
    )
    reason = models.CharField(max_length=500, blank=True)
    who = models.CharField(max_length=150)
    via = models.CharField(max_length=16)
    form_id = models.CharField(
        max_length=36, null=True, unique=True, help_text="Of the form that started it: sent twice, it starts one act."
    )
    audit_id = models.BigIntegerField(null=True, help_text="Row of the audit log.")

    total = models.PositiveBigIntegerField(default=0, help_text="Items that matched at the start.")
    done = models.PositiveBigIntegerField(default=0)
    skipped = models.PositiveBigIntegerField(default=0)
    skips = models.JSONField(default=dict, help_text="Number of skipped items by reason.")
    error = models.CharField(max_length=500, blank=True)

    cursor = models.JSONField(default=dict)
    hand = models.JSONField(default=list, help_text="Items of the step that has begun.")
    step = models.PositiveBigIntegerField(default=0)
    run = models.PositiveIntegerField(default=0, help_text="Number of the job that may continue; earlier ones end.")

    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    touched_at = models.DateTimeField(db_index=True, help_text="When its last step began or ended.")
    stop_asked_at = models.DateTimeField(null=True)
    stop_by = models.CharField(max_length=150, blank=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        default_permissions = ("view",)
        permissions = (("stop_bulkact", "Can stop bulk acts"),)
        verbose_name = "bulk act"
        indexes = (models.Index(fields=("state", "touched_at"), name="bulk_act_unfinished"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def unfinished(self) -> bool:
        return self.state in UNFINISHED

    @property
    def nonce(self) -> str:
        """Return the word by which the broker recognises a repeated step of this act."""
        return f"bulk.{self.pk}"

    def note_skips(self, reasons: dict[str, int]) -> None:
        self.skips = dict(Counter(self.skips) + Counter(reasons))
        self.skipped += sum(reasons.values())


UNFINISHED = (BulkAct.State.WAITING, BulkAct.State.RUNNING)
