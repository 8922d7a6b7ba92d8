"""Password reset links: signed, valid for one hour, usable once.

The worker makes the link when it composes the mail. No message, status, log line or table holds it.
"""

from __future__ import annotations

import datetime

from django.contrib.auth.models import User
from django.core import signing
from django.db import transaction
from django.urls import reverse
from django.utils import timezone
from django.utils.crypto import salted_hmac

from apps.mail.models import SentMail, Template
from switchyard.broker import clock
from switchyard.broker.errors import SwitchyardError
from switchyard.console.links import absolute

VALID_FOR = datetime.timedelta(hours=1)
_SALT = "apps.mail.reset-link"


class LinkInvalid(SwitchyardError):
    """A reset link is forged, expired or used."""

    def __init__(self, fact: str) -> None:
        self.fact = fact
        super().__init__(f"reset link: {fact}; ask for a new mail")


class _Signer(signing.TimestampSigner):
    """Signs with the yard's time: a worker whose clock is an hour behind would make links that never work."""

    def timestamp(self) -> str:
        return signing.b62_encode(clock.now_ms() // 1_000)


def reset_link(mail: SentMail) -> str:
    token = _Signer(salt=_SALT).sign_object({"mail": mail.pk, "account": _account_state(mail.to)})
    return absolute(reverse("mail-reset", args=[token]))


def open_link(token: str) -> SentMail:
    """Return the mail of a link that is still valid.

    Raises:
        LinkInvalid: forged, older than an hour, used, or the account's password changed since.
    """
    try:
        # Django reckons the age by this process's own clock.
        off = datetime.datetime.now(datetime.UTC) - clock.utc_now()
        content = _Signer(salt=_SALT).unsign_object(token, max_age=VALID_FOR + off)
    except signing.SignatureExpired:
        raise LinkInvalid("it is older than an hour") from None
    except signing.BadSignature:
        raise LinkInvalid("it is incomplete or was changed") from None
    mail = SentMail.objects.filter(pk=content["mail"], template=Template.PASSWORD_RESET).first()
    if mail is None or mail.link_used_at is not None or content["account"] != _account_state(mail.to):
        raise LinkInvalid("it was used before")
    return mail


def set_password(token: str, password: str) -> bool:
    """Set the account's password and invalidate every link sent to the address.

    Returns:
        Whether there is an account for the address; the link becomes invalid either way.

    Raises:
        LinkInvalid: as :func:`open_link`.
    """
    with transaction.atomic():
        mail = open_link(token)
        unused = SentMail.objects.filter(to=mail.to, template=Template.PASSWORD_RESET, link_used_at=None)
        if not unused.filter(pk=mail.pk).update(link_used_at=timezone.now()):
            raise LinkInvalid("it was used before")
        unused.update(link_used_at=timezone.now())
        user = account_of(mail.to)
        if user is not None:
            user.set_password(password)
            user.save(update_fields=["password"])
    return user is not None


def account_of(address: str) -> User | None:
    """Return the active account with this e-mail address, or ``None`` when there is none or it is not unique.

    The mail goes to ``address``, so it must be the account's own. Databases that compare Unicode without case match
    ``\u0131`` with ``i``, and so a foreign domain with the account's.
    """
    found = list(User.objects.filter(email__iexact=address, is_active=True)[:2])
    # Of bytes, only ASCII letters are compared without their case.
    is_same = len(found) == 1 and found[0].email.encode().lower() == address.encode().lower()
    return found[0] if is_same else None


def _account_state(address: str) -> str:
    user = account_of(address)
    return salted_hmac(_SALT, user.password if user else "", algorithm="sha256").hexdigest()[:16]
