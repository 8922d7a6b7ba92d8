"""Guard that sends each mail once, although jobs run at least once.

A run claims the mail's row, sends the mail, and marks the row ``sent``. A repeated run finds the mark and sends
nothing; a concurrent run finds the claim and waits until it expires.

Remaining risk: a worker that dies after the server accepted the mail and before the mark was committed (a few
milliseconds), or a connection that breaks after the last byte and before the server's answer. Whether the mail was
sent is then unknown, so it is sent again: a missing reset mail is worse than a second one. Both copies carry the same
Message-ID, by which receiving servers and mail programs drop the second.
"""

from __future__ import annotations

import datetime

from django.conf import settings
from django.db.models import F
from django.utils import timezone

from apps.mail.models import MailState, SentMail
from switchyard.broker import clock

# Longer than any run: the actors' soft limit of 12 s and one socket operation of EMAIL_TIMEOUT (8 s) on top.
CLAIM_S = 30


def key_of(job_id: str, template: str) -> str:
    """Return the unique key of a job's mail."""
    return f"{job_id}:{template}"


def claim(key: str, to: str) -> SentMail | None:
    """Claim a mail for this run.

    Returns:
        The claimed row, or ``None`` when it was sent or another run holds the claim, see :func:`find`.
    """
    now = clock.utc_now()
    job_id, _, template = key.partition(":")
    message_id = f"<{job_id}@{_domain()}>"
    mail, _ = SentMail.objects.get_or_create(
        key=key, defaults={"job_id": job_id, "template": template, "to": to, "message_id": message_id}
    )
    free = SentMail.objects.filter(pk=mail.pk).exclude(state=MailState.SENT).exclude(claimed_until__gt=now)
    lapses_at = now + datetime.timedelta(seconds=CLAIM_S)
    claimed = free.update(state=MailState.CLAIMED, to=to, reply="", runs=F("runs") + 1, claimed_until=lapses_at)
    if claimed == 0:
        return None
    mail.refresh_from_db()
    return mail


def find(key: str) -> SentMail:
    """Return a claimed mail."""
    return SentMail.objects.get(key=key)


def mark_sent(mail: SentMail) -> None:
    """Mark the mail as accepted by the server; no later run sends it again."""
    _finish(mail, state=MailState.SENT, sent_at=timezone.now())


def mark_refused(mail: SentMail, reply: str) -> None:
    """Mark the mail as permanently refused, with the server's codes."""
    _finish(mail, state=MailState.REFUSED, reply=reply)


def release(mail: SentMail, reply: str) -> None:
    """Release the claim after a failure, so that the next attempt need not wait for it to expire."""
    _finish(mail, reply=reply)


def _finish(mail: SentMail, **changes: object) -> None:
    SentMail.objects.filter(pk=mail.pk).update(claimed_until=None, **changes)
    mail.refresh_from_db()


def _domain() -> str:
    return settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].strip(" >")
