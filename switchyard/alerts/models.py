"""Alerts, their deliveries to channels, and silences."""

from django.db import models
from django.utils import timezone

# Seconds until a delivery that failed is tried again, after each of its tries.
BACKOFF_S = (5, 15, 45, 90)


class Alert(models.Model):
    """One group of like alerts, from the first until they stop."""

    class State(models.TextChoices):
        OPEN = "open", "Open"
        ACKNOWLEDGED = "acknowledged", "Acknowledged"
        RESOLVED = "resolved", "Resolved"

    class Severity(models.TextChoices):
        CRITICAL = "critical", "Critical"
        WARNING = "warning", "Warning"

    fingerprint = models.CharField(max_length=128)
    kind = models.CharField(max_length=64)
    title = models.CharField(max_length=300)
    severity = models.CharField(max_length=16, choices=Severity.choices)
    sample = models.TextField()
    queue = models.CharField(max_length=64, blank=True)
    actor = models.CharField(max_length=255, blank=True)
    link = models.CharField(max_length=500, blank=True)
    count = models.PositiveIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField(db_index=True)
    state = models.CharField(max_length=16, choices=State.choices, default=State.OPEN)
    acknowledged_by = models.CharField(max_length=150, blank=True)
    acknowledged_at = models.DateTimeField(null=True)
    resolved_by = models.CharField(max_length=150, blank=True, help_text="Empty: its cause has ended.")
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-last_at", "-id")
        default_permissions = ("view",)
        permissions = (
            ("acknowledge_alert", "Can acknowledge and resolve alerts"),
            ("silence_alert", "Can silence alerts"),
        )
        indexes = (models.Index(fields=("state", "kind", "fingerprint"), name="alert_unresolved"),)
        constraints = (models.UniqueConstraint(fields=("fingerprint", "first_at"), name="one_alert_a_group"),)

    def __str__(self) -> str:
        return self.title


class Delivery(models.Model):
    """One message of an alert to one channel: the first at once, later ones as a digest of a window's new occurrences.

    ``reported`` is the count that earlier messages reported; it makes the message unique.
    """

    class State(models.TextChoices):
        PENDING = "pending", "Pending"
        SENT = "sent", "Sent"
        GIVEN_UP = "given_up", "Given up"
        SILENCED = "silenced", "Silenced"

    alert = models.ForeignKey(Alert, models.CASCADE, related_name="deliveries")
    channel = models.CharField(max_length=200)
    reported = models.PositiveIntegerField()
    count = models.PositiveIntegerField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.PENDING)
    tries = models.PositiveSmallIntegerField(default=0)
    next_try_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ("id",)
        default_permissions = ()
        verbose_name_plural = "deliveries"
        constraints = (
            models.UniqueConstraint(fields=("alert", "channel", "reported"), name="one_delivery_a_channel_and_message"),
        )
        indexes = (models.Index(fields=("state", "next_try_at"), name="alert_delivery_due"),)

    def __str__(self) -> str:
        return f"{self.channel}: {self.state}"


class Silence(models.Model):
    """A time in which alerts of one fingerprint, or all alerts, are written but not sent.

    Over at ``until``, or earlier at ``ended_at``, when a person ended it.
    """

    fingerprint = models.CharField(max_length=128, blank=True, help_text="Empty: every alert.")
    until = models.DateTimeField(db_index=True)
    reason = models.CharField(max_length=500)
    created_by = models.CharField(max_length=150)
    created_at = models.DateTimeField(default=timezone.now)
    ended_by = models.CharField(max_length=150, blank=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("until", "id")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.fingerprint or 'every alert'} until {self.until:%Y-%m-%d %H:%M} UTC"
