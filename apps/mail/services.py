"""Sending of a job's mail, once."""

from __future__ import annotations

import uuid

import structlog
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils import timezone

from apps.mail import guard, messages, smtp
from apps.mail.messages import Issue
from apps.mail.models import MailState, SentMail, Template
from apps.mail.smtp import MailNotSent, MailRefused
from switchyard.broker import clock
from switchyard.middleware.errors import PermanentFailure, RetryLater

# A server that answers 4xx (greylisting, mailbox busy) repeats it within the next seconds.
ASKED_TO_WAIT_S = 60.0

logger = structlog.get_logger(__name__)


def send_newsletter(to: str, headline: str, paragraphs: list[str], *, job_id: str | None) -> bool:
    """Send a newsletter, best effort: a mail that the server refuses is logged and dropped."""
    try:
        return deliver(Template.NEWSLETTER, to, job_id=job_id, issue=Issue(headline, tuple(paragraphs)))
    except (MailNotSent, RetryLater, PermanentFailure) as failure:
        logger.info("newsletter_not_sent", reason=str(failure))
        return False


def deliver(template: Template, to: str, *, job_id: str | None, issue: Issue | None = None) -> bool:
    """Send one mail, unless this job's mail was sent before.

    Args:
        job_id: The job that sends it; with ``None`` (no worker) every call sends a mail.

    Returns:
        Whether this call sent it.

    Raises:
        PermanentFailure: ``to`` is no address, or the server refuses it permanently.
        RetryLater: another run of this job has claimed the mail, or the server asks to wait.
        MailNotSent: the server was not reached.
    """
    try:
        validate_email(to)
    except ValidationError:
        raise PermanentFailure("recipient: is no e-mail address; correct it and send it as a new job") from None
    key = guard.key_of(job_id or str(uuid.uuid4()), template)
    mail = guard.claim(key, to)
    if mail is None:
        return _nothing_to_do(SentMail.objects.get(key=key))
    try:
        smtp.send(messages.compose(mail, issue))
    except MailRefused as refused:
        guard.release(mail, state=MailState.REFUSED, reply=refused.reply)
        raise PermanentFailure(str(refused)) from None
    except MailNotSent as failure:
        guard.release(mail, reply=failure.reply)
        if failure.asked_to_wait:
            raise RetryLater(ASKED_TO_WAIT_S, str(failure)) from None
        raise
    except BaseException as interruption:
        # Time limit or shutdown: release the claim, so that the next run need not wait for it to expire.
        guard.release(mail, reply=type(interruption).__name__)
        raise
    guard.release(mail, state=MailState.SENT, sent_at=timezone.now())
    return True


def _nothing_to_do(mail: SentMail) -> bool:
    if mail.state == MailState.SENT:
        logger.info("mail_was_sent_before", template=mail.template)
        return False
    left_s = (mail.claimed_until - clock.utc_now()).total_seconds() if mail.claimed_until else 0.0
    raise RetryLater(max(left_s, 0.0) + 1.0, "mail: another run of this job sends it; retried when its claim expires")
