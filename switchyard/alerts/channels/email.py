"""Alerts by e-mail through the project's mail server."""

from __future__ import annotations

from dataclasses import dataclass
from smtplib import SMTPException

from django.core.mail import EmailMessage, get_connection

from switchyard.alerts.channels import DEADLINE_S
from switchyard.alerts.errors import ChannelFailed
from switchyard.alerts.notice import Notice

LONGEST_SUBJECT = 200


@dataclass(frozen=True, slots=True)
class EmailChannel:
    """Channel that mails each message to fixed addresses."""

    recipients: tuple[str, ...]

    @property
    def name(self) -> str:
        """``email`` and the addresses."""
        return f"email {', '.join(self.recipients)}"[:200]

    def send(self, notice: Notice) -> None:
        """Send one mail.

        Raises:
            ChannelFailed: the mail server refused it or did not answer.
        """
        subject = " ".join(notice.headline.split())[:LONGEST_SUBJECT]
        # A repeated attempt carries the same Message-ID, so that mailboxes show it once.
        headers = {"Message-ID": f"<alert-{notice.id}@switchyard>", "Auto-Submitted": "auto-generated"}
        connection = get_connection(timeout=DEADLINE_S)
        mail = EmailMessage(subject, notice.text, to=list(self.recipients), headers=headers, connection=connection)
        try:
            mail.send()
        except (OSError, SMTPException) as error:
            raise ChannelFailed(self.name, f"{type(error).__name__} from the mail server") from error
