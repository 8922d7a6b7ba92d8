"""Delivery of one mail to the mail server, with refusals sorted into temporary and permanent.

No message of an error names a recipient, because messages are logged.
"""

from __future__ import annotations

import re
import smtplib
import ssl

from django.core.mail import EmailMultiAlternatives

from switchyard.broker.errors import SwitchyardError

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
