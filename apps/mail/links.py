"""Links to Django's page for a new password. The worker makes one when it composes the mail: nothing else holds it."""

import datetime

from django.contrib.auth.models import User
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from switchyard.console.links import absolute
from switchyard.middleware.clock_comparison import compared_now


class ResetTokens(PasswordResetTokenGenerator):
    """Django's tokens by the yard's time: a worker whose clock is an hour behind would make links that never work."""

    def _now(self) -> datetime.datetime:
        return compared_now().replace(tzinfo=None)


TOKENS = ResetTokens()


def reset_link(address: str) -> str:
    """Return the link of the account with an address, which works once, for an hour; "" where there is no account."""
    user = account_of(address)
    if user is None:
        return ""
    return absolute(reverse("mail-reset", args=[urlsafe_base64_encode(force_bytes(user.pk)), TOKENS.make_token(user)]))


def account_of(address: str) -> User | None:
    """Return the active account with this e-mail address, or ``None`` when there is none or it is not unique.

    The mail goes to ``address``, so it must be the account's own. Databases that compare Unicode without case match
    ``\u0131`` with ``i``, and so a foreign domain with the account's.
    """
    found = list(User.objects.filter(email__iexact=address, is_active=True)[:2])
    # Of bytes, only ASCII letters are compared without their case.
    is_same = len(found) == 1 and found[0].email.encode().lower() == address.encode().lower()
    return found[0] if is_same else None
