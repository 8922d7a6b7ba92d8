"""Remedies for TLS connections that fail, by the words of the TLS library."""

from __future__ import annotations

from typing import Final

# The first that is in the error's text. A server that wants a certificate may close the connection without a word.
REMEDIES: Final = (
    ("certificate has expired", "the server's certificate has expired: renew it"),
    (
        "mismatch",
        "the server's certificate is for another name: write in SWITCHYARD_BROKER_URL a host that it contains",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the authority of the server's certificate is unknown here: append ?ssl_ca_certs=/path/to/ca.pem to "
        "SWITCHYARD_BROKER_URL",
    ),
    (
        "CERTIFICATE_REQUIRED",
        "the server wants a client's certificate: append ?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key "
        "to SWITCHYARD_BROKER_URL",
    ),
    (
        "EOF occurred in violation",
        "the server ended the connection within TLS, perhaps because it wants a client's certificate: append "
        "?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key to SWITCHYARD_BROKER_URL",
    ),
)


def tls_remedy(error: BaseException | None) -> str:
    """Return what to do about a failed TLS connection; "" for any other error."""
    text = str(error) if error is not None else ""
    return next((remedy for words, remedy in REMEDIES if "SSL" in text.upper() and words in text), "")
