"""Stored state of schedules."""

import datetime

from django.db import models
from django.utils import timezone

from switchyard.schedules.registry import CATCH_UP, OVERLAP, UTC


class ScheduleState(models.Model):
    """Progress of one schedule, which the scheduler writes, and its pause, which operators write.

    ``actor`` is the schedule's name: that of its periodic actor, or of its row.
    ``missed`` counts the ticks that fell due during the present pause, or during the last one.
    """

    actor = models.CharField(max_length=200, unique=True)
    spec = models.CharField(max_length=200, verbose_name="schedule")
    since = models.DateTimeField(help_text="Ticks up to here are done.")
    last_tick = models.DateTimeField(null=True, blank=True, help_text="The minute that was due last.")
    last_job_id = models.CharField(max_length=36, blank=True)
    lateness_ms = models.PositiveBigIntegerField(null=True, blank=True, help_text="How late the last tick was sent.")
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_until = models.DateTimeField(null=True, blank=True, help_text="Empty: until it is resumed.")
    paused_by = models.CharField(max_length=150, blank=True, default="")
    paused_reason = models.CharField(max_length=500, blank=True, default="")
    missed = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["actor"]
        permissions = [
            ("run_schedule", "Can run a schedule now"),
            ("pause_schedule", "Can pause a schedule"),
            ("edit_schedule", "Can make, change and delete stored schedules"),
        ]

    def __str__(self) -> str:
        return self.actor

    def is_paused(self, now: datetime.datetime) -> bool:
        """Return whether no tick is sent at a moment."""
        return self.paused_at is not None and (self.paused_until is None or now < self.paused_until)


class ScheduleTick(models.Model):
    """One of the last ticks of a schedule, or a run that a person requested."""

    class Outcome(models.TextChoices):
        SENT = "sent", "Sent"
        MISSED = "missed", "Missed: paused"
        SKIPPED = "skipped", "Skipped: the job before had not ended"
        DROPPED = "dropped", "Dropped: later than its deadline"
        RUN_NOW = "run_now", "Run now"

    schedule = models.CharField(max_length=200)
    due_at = models.DateTimeField()
    outcome = models.CharField(max_length=8, choices=Outcome.choices)
    lateness_ms = models.PositiveBigIntegerField(null=True)
    job_id = models.CharField(max_length=36, blank=True, default="")
    by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("schedule", "due_at", "outcome"), name="schedule_tick_once"),)

    def __str__(self) -> str:
        return f"{self.schedule} {self.due_at:%Y-%m-%d %H:%M}"


class StoredSchedule(models.Model):
    """A schedule that a person made, see :class:`~switchyard.schedules.registry.Schedule`; a pause is its state's.

    It has a cron expression, or an interval ``every_s`` that counts from ``start``, else from when it was made.
    """

    name = models.CharField(max_length=100, unique=True)
    actor = models.CharField(max_length=200)
    args = models.JSONField(default=list, blank=True)
    kwargs = models.JSONField(default=dict, blank=True)
    cron = models.CharField(max_length=100, blank=True, default="")
    every_s = models.PositiveIntegerField(null=True, blank=True)
    time_zone = models.CharField(max_length=64, default=UTC)
    start = models.DateTimeField(null=True, blank=True)
    end = models.DateTimeField(null=True, blank=True)
    overlap = models.CharField(max_length=8, choices=[(word, word) for word in OVERLAP], default="allow")
    deadline_s = models.PositiveIntegerField(null=True, blank=True)
    catch_up = models.CharField(max_length=8, choices=[(word, word) for word in CATCH_UP], default="once")
    created_at = models.DateTimeField(default=timezone.now)
    changed_at = models.DateTimeField(auto_now=True)
    changed_by = models.CharField(max_length=150, blank=True, default="")

    class Meta:
        ordering = ("name",)
        default_permissions = ()

    def __str__(self) -> str:
        return self.name
