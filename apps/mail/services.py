"""Sending of a job's mail, once: composed from the templates in ``templates/mail/``, sent, refusals sorted.

No message of an error names a recipient, because messages are logged.
"""

import re
import smtplib
import ssl
import uuid
from collections.abc import Sequence
from typing import Any

import structlog
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMultiAlternatives
from django.core.validators import validate_email
from django.template.loader import render_to_string
from django.utils import timezone

from apps.mail import guard, links
from apps.mail.guard import sender_domain
from apps.mail.models import MailState, SentMail, Template
from apps.shop.models import Customer
from switchyard.broker import clock
from switchyard.broker.errors import SwitchyardError
from switchyard.conf import switchyard_settings
from switchyard.middleware.errors import PermanentFailure, RetryLater

SUBJECTS = {
    Template.WELCOME: "Welcome to Switchyard",
    Template.PASSWORD_RESET: "Set a new password",
    Template.NEWSLETTER: "What is new in the yard",
}


def compose(mail: SentMail, headline: str = "", paragraphs: Sequence[str] = ()) -> EmailMultiAlternatives:
    """Return the composed mail, a newsletter with its content. Every run composes it anew, with the same Message-ID."""
    template = Template(mail.template)
    context: dict[str, Any] = {
        "subject": headline or SUBJECTS[template],
        "name": Customer.objects.filter(email=mail.to).values_list("name", flat=True).first() or "",
        "to": mail.to,
        "site_url": switchyard_settings().public_url + "/",
        "paragraphs": paragraphs,
    }
    if template == Template.PASSWORD_RESET:
        context["reset_link"] = links.reset_link(mail.to)
        context["valid_minutes"] = settings.PASSWORD_RESET_TIMEOUT // 60
    headers = {"Message-ID": mail.message_id, "Auto-Submitted": "auto-generated"}
    if template == Template.NEWSLETTER:
        address = f"unsubscribe@{sender_domain()}?subject=unsubscribe"
        headers |= {"Precedence": "bulk", "List-Unsubscribe": f"<mailto:{address}>"}
    message = EmailMultiAlternatives(
        subject=" ".join(context["subject"].split()),
        body=render_to_string(f"mail/{template}.txt", context),
        to=[mail.to],
        headers=headers,
    )
    message.attach_alternative(render_to_string(f"mail/{template}.html", context), "text/html")
    return message


_ENHANCED_CODE = re.compile(rb"^\s*([245]\.\d{1,3}\.\d{1,3})\b")


class MailNotSent(SwitchyardError):
    """The mail server was not reached, or refused the mail temporarily. Retrying may succeed.

    Args:
        reply: The server's codes, for example ``451 4.7.1``; or the exception's class without one.
        asked_to_wait: The server answered 4xx, so a retry within seconds is pointless.
    """

    def __init__(self, reply: str, *, asked_to_wait: bool = False) -> None:
        self.reply = reply
        self.asked_to_wait = asked_to_wait
        super().__init__(
            f"mail server: did not take the mail ({reply}); it is tried again, see SWITCHYARD_SMTP_URL if this stays"
        )


class MailRefused(SwitchyardError):
    """The mail server refused recipient or content permanently."""

    def __init__(self, reply: str) -> None:
        self.reply = reply
        super().__init__(f"mail server: refused the mail for good ({reply}); check the recipient's address")


def send(message: EmailMultiAlternatives) -> None:
    """Send a mail to its one recipient, with ``EMAIL_TIMEOUT`` seconds for each step.

    Raises:
        MailNotSent: no connection, no answer, a 4xx, or a refusal of login or sender.
        MailRefused: a 5xx for the recipient or the content.
    """
    # `from None` drops the causes: smtplib's messages hold the recipient's address.
    try:
        message.send()
    except smtplib.SMTPRecipientsRefused as refused:
        code, text = next(iter(refused.recipients.values()))
        raise _judge(code, text) from None
    except smtplib.SMTPDataError as refused:
        raise _judge(refused.smtp_code, refused.smtp_error) from None
    except smtplib.SMTPResponseException as refused:
        reply = _reply(refused.smtp_code, refused.smtp_error)
        raise MailNotSent(reply, asked_to_wait=400 <= refused.smtp_code < 500) from None
    except (smtplib.SMTPException, ssl.SSLError, OSError) as failure:
        raise MailNotSent(type(failure).__name__) from None


def _judge(code: int, text: bytes | str) -> MailNotSent | MailRefused:
    if code >= 500:
        return MailRefused(_reply(code, text))
    return MailNotSent(_reply(code, text), asked_to_wait=400 <= code < 500)


def _reply(code: int, text: bytes | str) -> str:
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    enhanced = _ENHANCED_CODE.match(raw)
    return f"{code} {enhanced[1].decode()}" if enhanced else str(code)


# A server that answers 4xx (greylisting, mailbox busy) repeats it within the next seconds.
ASKED_TO_WAIT_S = 60.0

logger = structlog.get_logger(__name__)


def send_newsletter(to: str, headline: str, paragraphs: list[str], *, job_id: str | None) -> bool:
    """Send a newsletter, best effort: a mail that the server refuses is logged and dropped."""
    try:
        return deliver(Template.NEWSLETTER, to, job_id=job_id, headline=headline, paragraphs=paragraphs)
    except (MailNotSent, RetryLater, PermanentFailure) as failure:
        logger.info("newsletter_not_sent", reason=str(failure))
        return False


def deliver(
    template: Template, to: str, *, job_id: str | None, headline: str = "", paragraphs: Sequence[str] = ()
) -> bool:
    """Send one mail, unless this job's mail was sent before; return whether this call sent it.

    Args:
        job_id: The job that sends it; with ``None`` (no worker) every call sends a mail.

    Raises:
        PermanentFailure: ``to`` is no address, or the server refuses it permanently.
        RetryLater: another run of this job has claimed the mail, or the server asks to wait.
        MailNotSent: the server was not reached.
    """
    try:
        validate_email(to)
    except ValidationError:
        raise PermanentFailure("recipient: is not an e-mail address; correct it and send it as a new job") from None
    mail, is_claimed = guard.claim(job_id or str(uuid.uuid4()), template, to)
    if not is_claimed:
        if mail.state == MailState.SENT:
            logger.info("mail_was_sent_before", template=mail.template)
            return False
        left_s = (mail.claimed_until - clock.utc_now()).total_seconds() if mail.claimed_until else 0.0
        fact = "mail: another run of this job sends it; retried when its claim expires"
        raise RetryLater(max(left_s, 0.0) + 1.0, fact)
    try:
        send(compose(mail, headline, paragraphs))
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
