"""Remedies for TLS connections that fail, by the words of the TLS library."""

from __future__ import annotations

import errno
import re
from traceback import walk_tb
from typing import Final

from switchyard.broker.errors import ADDRESSES

# At the end of a clause.
ADDRESS: Final = ADDRESSES.removesuffix(",")
UNREADABLE: Final = (
    "a file for TLS cannot be read here: correct the path behind ssl_ca_certs, ssl_certfile or ssl_keyfile in "
    f"{ADDRESS}, or let the account of this process read it"
)
# The TLS library's words for the name by which the server was called.
CALLED: Final = re.compile(r"not valid for '([^']+)'")
# The first that is in the error's text. A server that wants a certificate may close the connection without a word.
REMEDIES: Final = (
    (
        "KEY_VALUES_MISMATCH",
        "the client's certificate and key do not belong together: name two files of one certificate by ssl_certfile "
        f"and ssl_keyfile in {ADDRESS}",
    ),
    (
        "handshake operation timed out",
        "the server accepts connections and does not answer within TLS: check its process and its log; where it "
        f"listens without TLS, write redis in place of rediss at the beginning of {ADDRESS}",
    ),
    ("certificate has expired", "the server's certificate has expired: renew it"),
    (
        "mismatch",
        f"the server's certificate is for another name{{named}}: write a host that it contains in {ADDRESS}; where "
        "sentinels or other servers name it, give it a certificate for the host that they name",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        f"the authority of the server's certificate is unknown here: append ?ssl_ca_certs=/path/to/ca.pem to {ADDRESS}",
    ),
    (
        "CERTIFICATE_REQUIRED",
        "the server wants a client's certificate: append ?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key "
        f"to {ADDRESS}",
    ),
    (
        "EOF occurred in violation",
        "the server ended the connection within TLS, perhaps because it wants a client's certificate: append "
        f"?ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key to {ADDRESS}",
    ),
)


def tls_remedy(error: BaseException | None) -> str:
    """Return what to do about a failed TLS connection; "" for any other error."""
    if error is None:
        return ""
    below = error.__context__  # redis-py's words for a timeout and for a missing file leave out that it was TLS
    if _is_unreadable(below):
        return UNREADABLE
    text = f"{error} {below or ''}"
    called = CALLED.search(text)
    remedy = next((remedy for words, remedy in REMEDIES if "SSL" in text.upper() and words in text), "")
    return remedy.replace("{named}", f" than {called[1]}" if called else "")


def _is_unreadable(error: BaseException | None) -> bool:
    """Return whether TLS raised the error. A Unix socket may be missing as well, and SELinux forbid a connection."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOENT, errno.EACCES):
        return False
    return any(frame.f_code.co_name == "_wrap_socket_with_ssl" for frame, _ in walk_tb(error.__traceback__))
