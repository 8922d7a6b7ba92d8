"""Signatures of inbound events according to Standard Webhooks (https://www.standardwebhooks.com, symmetric ``v1``).

``webhook-signature`` is ``v1,`` and the base64 of HMAC-SHA256 over ``<webhook-id>.<webhook-timestamp>.<body>``; several
are allowed, separated by spaces, while a secret changes. The key is the bytes of ``SWITCHYARD_PAYMENT_SECRET``; for one
that starts with ``whsec_``, the base64-decoded rest of it.
"""

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Mapping

TOLERANCE_S = 300
MIN_KEY_BYTES = 24
ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"
_SECRET_PREFIX = "whsec_"  # noqa: S105 (a prefix, no secret)
_ID = re.compile(r"[!-~]{1,255}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


class SignatureRefused(Exception):
    """A request's signature is invalid or too old. The message holds no secret."""


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now_s: float | None = None) -> str:
    """Check a request's signature and return its ``webhook-id``.

    Args:
        headers: With names in any case that the mapping understands, as ``HttpRequest.headers`` does.
        body: The request's body, unchanged.
        now_s: The time, in seconds since the epoch; the clock's by default.

    Raises:
        SignatureRefused: a header is missing or unreadable, the time is more than 5 minutes off, no signature fits.
    """
    webhook_id = _header(headers, ID_HEADER, _ID, "1 to 255 printable characters without spaces")
    timestamp = _header(headers, TIMESTAMP_HEADER, _TIMESTAMP, "whole seconds since the epoch")
    off_s = (time.time() if now_s is None else now_s) - int(timestamp)
    if abs(off_s) > TOLERANCE_S:
        raise SignatureRefused(
            f"{TIMESTAMP_HEADER}: {abs(off_s):.0f} s {'old' if off_s > 0 else 'ahead'}, {TOLERANCE_S} s are the most; "
            "check the sender's clock and sign again"
        )
    expected = sign(secret, webhook_id, int(timestamp), body).encode()
    offered = headers.get(SIGNATURE_HEADER, "").encode("utf-8", "replace").split(b" ")
    # Compare every signature, so that the duration does not reveal which one matches.
    if not sum(hmac.compare_digest(expected, signature) for signature in offered):
        raise SignatureRefused(
            f"{SIGNATURE_HEADER}: none fits; sign <id>.<timestamp>.<body> with the shared secret, see the API's page"
        )
    return webhook_id


def sign(secret: str, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the ``webhook-signature`` that a sender adds to a request."""
    signed = f"{webhook_id}.{timestamp_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key_of(secret), signed, hashlib.sha256).digest()).decode()


def signed_headers(secret: str, webhook_id: str, body: bytes, *, now_s: float | None = None) -> dict[str, str]:
    """Return the three headers a sender adds to a request."""
    timestamp_s = int(time.time() if now_s is None else now_s)
    return {
        ID_HEADER: webhook_id,
        TIMESTAMP_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: sign(secret, webhook_id, timestamp_s, body),
    }


def _header(headers: Mapping[str, str], name: str, pattern: re.Pattern[str], wanted: str) -> str:
    value = headers.get(name)
    if value is None:
        raise SignatureRefused(f"{name}: is missing; send {wanted}")
    if pattern.fullmatch(value) is None:
        raise SignatureRefused(f"{name}: is not {wanted}")
    return value


def key_of(secret: str) -> bytes:
    """Return the signing key of a configured secret.

    Raises:
        ValueError: a ``whsec_`` secret that is no base64, or less than 24 bytes of it.
    """
    if not secret.startswith(_SECRET_PREFIX):
        return secret.encode()
    text = secret.removeprefix(_SECRET_PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        key = b""
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(
            f"SWITCHYARD_PAYMENT_SECRET: what follows whsec_ is not the base64 of at least {MIN_KEY_BYTES} bytes; "
            "copy the sender's secret again"
        )
    return key
