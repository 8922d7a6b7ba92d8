"""Database rows of dead letters: a copy of the broker's dead lists, for display and search."""

from django.db import models


class DeadLetter(models.Model):
    """One dead letter.

    The broker's dead list is authoritative: ``projection`` writes this row from the list, ``reconcile`` repairs the row
    after a crash.
    ``claim_*`` holds an operator's action that the broker has not yet confirmed; see ``acts``.
    """

    class State(models.TextChoices):
        NEW = "new", "New"
        ACKNOWLEDGED = "acknowledged", "Acknowledged"
        REQUEUED = "requeued", "Requeued"
        DISCARDED = "discarded", "Discarded"
        MISSING = "missing", "Missing in the broker"

    message_id = models.CharField("job", max_length=200, unique=True)  # the broker's limit
    queue = models.CharField(max_length=64)
    actor = models.CharField(max_length=255)
    reason = models.CharField(max_length=32)
    exception = models.CharField(max_length=255)
    error = models.TextField()
    traceback = models.TextField()
    attempts = models.PositiveIntegerField()
    deaths = models.PositiveIntegerField(default=1)
    payload = models.JSONField()
    fingerprint = models.CharField(max_length=64)
    enqueued_at = models.DateTimeField()
    died_at = models.DateTimeField(db_index=True)
    duration_ms = models.PositiveBigIntegerField()
    state = models.CharField(max_length=16, choices=State.choices, default=State.NEW)
    # A number: SQLite does not use an index for a bare boolean.
    is_open = models.GeneratedField(
        expression=models.Case(models.When(state__in=("new", "acknowledged"), then=1), default=0),
        output_field=models.SmallIntegerField(),
        db_persist=True,
    )
    state_at = models.DateTimeField()
    state_by = models.CharField(max_length=150, blank=True)
    history = models.JSONField(default=list)
    # The whole letter as JSON while it is discarded, so that it can be restored. Holds secrets: no page shows it.
    kept = models.TextField(blank=True, default="")

    claim_token = models.CharField(max_length=32, blank=True, default="")
    claim_act = models.CharField(max_length=16, blank=True, default="")
    claim_by = models.CharField(max_length=150, blank=True, default="")
    claim_note = models.CharField(max_length=500, blank=True, default="")
    claim_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-died_at", "-id")
        default_permissions = ("view",)
        permissions = (
            ("acknowledge_deadletter", "Can acknowledge dead letters"),
            ("requeue_deadletter", "Can requeue dead letters"),
            ("discard_deadletter", "Can discard dead letters"),
        )
        # Cover counting and grouping of 100,000 open letters, so that no query reads the tracebacks.
        indexes = (
            models.Index(fields=("is_open", "fingerprint", "state", "died_at", "id"), name="dead_letter_groups"),
            models.Index(fields=("is_open", "died_at", "id"), name="dead_letter_newest"),
            # Counts and lists of the letters of one state.
            models.Index(fields=("state", "died_at", "id"), name="dead_letter_states"),
        )

    def __str__(self) -> str:
        return f"{self.actor} {self.message_id}"


OPEN_STATES = (DeadLetter.State.NEW, DeadLetter.State.ACKNOWLEDGED)
# A claim of a bulk act: its job alone settles it, however long that takes.
BULK_CLAIM = "bulk."
