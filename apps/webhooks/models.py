"""Endpoints, events, deliveries of events to endpoints, and their attempts."""

import uuid

from django.contrib import admin
from django.db import models
from django.utils import timezone

EXCERPT_BYTES = 4096


class Endpoint(models.Model):
    """A URL of a customer, the events it subscribes to, and the secret that signs its deliveries.

    Secrets are stored readable because every delivery signs with them; they are shown only when created.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner_key = models.CharField(max_length=64, db_index=True, help_text="Whose events it gets.")
    url = models.CharField(max_length=2048)
    events = models.JSONField(help_text="Types of events it is sent.")
    secret = models.CharField(max_length=80)
    active = models.BooleanField(default=True)
    in_order = models.BooleanField(default=False, db_default=False, help_text="Events wait for those before them.")
    disabled_reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ["-created_at"]
        permissions = [("operate_endpoint", "Can enable and disable")]

    def __str__(self) -> str:
        return f"endpoint {self.shown_url}"

    @property
    @admin.display(description="URL", ordering="url")
    def shown_url(self) -> str:
        """Displayed URL, without its query, which may hold a secret."""
        base, mark, _ = self.url.partition("?")
        return base + ("?…" if mark else "")


class Event(models.Model):
    """An event of an owner. ``payload`` is canonical JSON: every attempt sends the same bytes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner_key = models.CharField(max_length=64, db_index=True)
    type = models.CharField(max_length=100, db_index=True)
    payload = models.TextField()
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.type} {self.created_at:%Y-%m-%d %H:%M:%S} UTC"


class DeliveryState(models.TextChoices):
    """State of a delivery."""

    PENDING = "pending", "Pending"
    RETRYING = "retrying", "Retrying"
    SUCCEEDED = "succeeded", "Succeeded"
    DEAD = "dead", "Given up"
    SKIPPED = "skipped", "Skipped"


class Delivery(models.Model):
    """Delivery of one event to one endpoint. Its id determines the ``webhook-id``, which never changes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    event = models.ForeignKey(Event, on_delete=models.CASCADE, related_name="deliveries")
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="deliveries")
    job_id = models.CharField(max_length=40, db_index=True, help_text="The job that delivers it, or did last.")
    state = models.CharField(max_length=10, choices=DeliveryState, default=DeliveryState.PENDING, db_index=True)
    attempts_count = models.PositiveIntegerField("attempts", default=0)
    last_attempt_at = models.DateTimeField(null=True, blank=True)
    last_status_code = models.PositiveSmallIntegerField("last status", null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "deliveries"
        permissions = [("redeliver_delivery", "Can send a delivery again")]

    def __str__(self) -> str:
        return f"delivery {self.webhook_id}"

    @property
    def webhook_id(self) -> str:
        """Value of the header ``webhook-id``: the same for every attempt, redeliveries included."""
        return f"msg_{self.id.hex}"


class Attempt(models.Model):
    """One attempt of a delivery. ``status_code`` is empty when no answer arrived; ``error`` then holds the cause."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    status_code = models.PositiveSmallIntegerField("status", null=True, blank=True)
    duration_ms = models.PositiveIntegerField("duration (ms)")
    response_excerpt = models.TextField("response", blank=True)
    error = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ["delivery", "number"]
        constraints = [models.UniqueConstraint(fields=["delivery", "number"], name="one_attempt_per_number")]

    def __str__(self) -> str:
        return f"attempt {self.number}"
