"""System check of billing's setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error

from apps.billing import signatures


def check_payment_secret(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a secret of inbound payment events that is no valid signing key."""
    try:
        signatures.key_of(settings.PAYMENT_SECRET)
    except ValueError as error:
        fact, _, remedy = str(error).partition("; ")
        return [Error(fact, hint=remedy, id="switchyard.E060")]
    return []
