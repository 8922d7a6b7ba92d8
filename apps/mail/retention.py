"""Retention of mails: the rows of those that were sent or refused."""

from __future__ import annotations

from django.db.models import Q

from apps.mail.models import MailState, SentMail
from apps.retention.kinds import RetentionKind

KIND = RetentionKind(
    name="mails",
    title="Mails",
    content="Rows of sent and refused mails; those of mails that are still to be sent stay",
    model=SentMail,
    ended=Q(state__in=(MailState.SENT, MailState.REFUSED)),
)
