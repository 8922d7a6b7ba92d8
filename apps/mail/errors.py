"""Errors of sending mail. No message names a recipient, because messages are logged."""

from __future__ import annotations

from switchyard.broker.errors import SwitchyardError


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


class LinkInvalid(SwitchyardError):
    """A reset link is forged, expired or used."""

    def __init__(self, fact: str) -> None:
        self.fact = fact
        super().__init__(f"reset link: {fact}; ask for a new mail")
