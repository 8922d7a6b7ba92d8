"""Bodies and signatures according to Standard Webhooks.

Source: https://www.standardwebhooks.com, version 1.
"""

import base64
import json
import secrets
from datetime import datetime
from typing import Any

from standardwebhooks.webhooks import Webhook

from apps.webhooks.models import Event
from switchyard.console.formatting import iso


def new_secret() -> str:
    """Make a secret: ``whsec_`` and 32 random bytes in base64."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def canonical(value: Any) -> str:
    """Return compact JSON in ASCII with sorted names: equal values give equal bytes.

    Raises:
        ValueError: it holds a number that JSON cannot express.
        RecursionError: it is nested too deeply.
    """
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)


def body_of(event: Event) -> bytes:
    """Return the body that every attempt for an event sends: ``type``, ``timestamp`` and ``data``."""
    at = iso(event.created_at)
    return f'{{"type":{canonical(event.type)},"timestamp":{canonical(at)},"data":{event.payload}}}'.encode()


def headers_for(webhook_id: str, body: bytes, secret: str, now: datetime) -> dict[str, str]:
    """Return the headers of one attempt, signed with its endpoint's secret.

    Args:
        now: Time of sending, with a time zone; receivers refuse a difference of more than five minutes.
    """
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(webhook_id, now, body.decode()),
    }
