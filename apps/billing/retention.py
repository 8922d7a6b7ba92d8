"""Retention of payment events: those that were applied. Their payments stay."""

from __future__ import annotations

from django.db.models import Q

from apps.billing.models import EventState, PaymentEvent
from apps.retention.kinds import RetentionKind

KIND = RetentionKind(
    name="payment_events",
    title="Payment events",
    content="Applied events of the payment provider; their payments stay, and so do events without an invoice",
    model=PaymentEvent,
    age="received_at",
    ended=Q(state=EventState.APPLIED),
)
