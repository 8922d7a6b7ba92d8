"""Database rows of the outbox: messages that a transaction sends, until the broker has them."""

from django.db import models


class OutboxRow(models.Model):
    """A message that its transaction sends. Times are milliseconds since the epoch.

    ``due_ms`` is the time of a delayed message. ``order_key`` is the key within which messages keep their order, see
    ``rows.order_key``; "" for none.
    """

    job_id = models.CharField("job", max_length=200, db_index=True)
    queue = models.CharField(max_length=80)
    order_key = models.CharField(max_length=300, blank=True)
    body = models.BinaryField()
    due_ms = models.BigIntegerField(null=True)
    created_ms = models.BigIntegerField()

    class Meta:
        ordering = ("id",)
        default_permissions = ()
        indexes = (models.Index(fields=("order_key", "id"), condition=~models.Q(order_key=""), name="outbox_order"),)

    def __str__(self) -> str:
        return f"{self.queue} {self.job_id}"
