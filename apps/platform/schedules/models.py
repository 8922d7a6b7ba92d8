"""Stored state of schedules."""

from __future__ import annotations

from django.db import models


class ScheduleState(models.Model):
    """Progress of one periodic actor. Only the scheduler writes it."""

    actor = models.CharField(max_length=200, unique=True)
    spec = models.CharField(max_length=200, verbose_name="schedule")
    since = models.DateTimeField(help_text="Ticks up to here are done.")
    last_tick = models.DateTimeField(null=True, blank=True, help_text="The minute that was due last.")
    last_job_id = models.CharField(max_length=36, blank=True)
    lateness_ms = models.PositiveBigIntegerField(null=True, blank=True, help_text="How late the last tick was sent.")

    class Meta:
        ordering = ["actor"]
        permissions = [("run_schedule", "Can run a schedule now")]

    def __str__(self) -> str:
        return self.actor
