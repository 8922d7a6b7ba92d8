"""Guard that sends each mail once, although jobs run at least once.

A run claims the mail's row, sends the mail, and marks the row ``sent``. A repeated run finds the mark and sends
nothing; a concurrent run finds the claim and waits until it expires.

A worker that dies between the server's answer and the mark, or a connection that breaks before that answer, leaves
unknown whether the mail was sent. It is sent again, with the same Message-ID, by which mail programs drop the second.
"""

import datetime

from django.conf import settings
from django.db.models import F

from apps.mail.models import MailState, SentMail
from switchyard.broker import clock

# Longer than any run: the actors' soft limit of 12 s and one socket operation of EMAIL_TIMEOUT (8 s) on top.
CLAIM_S = 30


def claim(job_id: str, template: str, to: str) -> tuple[SentMail, bool]:
    """Claim a job's mail for this run; return its row, and ``False`` when it was sent or another run has claimed it."""
    now = clock.utc_now()
    message_id = f"<{job_id}@{sender_domain()}>"
    values = {"job_id": job_id, "template": template, "to": to, "message_id": message_id}
    mail, _ = SentMail.objects.get_or_create(key=f"{job_id}:{template}", defaults=values)
    free = SentMail.objects.filter(pk=mail.pk).exclude(state=MailState.SENT).exclude(claimed_until__gt=now)
    lapses_at = now + datetime.timedelta(seconds=CLAIM_S)
    claimed = free.update(state=MailState.CLAIMED, to=to, reply="", runs=F("runs") + 1, claimed_until=lapses_at)
    mail.refresh_from_db()
    return mail, claimed == 1


def release(mail: SentMail, **outcome: object) -> None:
    """Release the claim and write the outcome; after a failure the next attempt need not wait for it to expire."""
    SentMail.objects.filter(pk=mail.pk).update(claimed_until=None, **outcome)
    mail.refresh_from_db()


def sender_domain() -> str:
    return settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].strip(" >")
