"""What can go wrong with an outgoing request. No message carries a URL's path, query or user: those may be secrets."""

from __future__ import annotations

from broker.errors import SwitchyardError


class OutboundError(SwitchyardError):
    """An outgoing request has no answer that could be used.

    Args:
        subject: The host, as far as it could be read.
        fact: What happened; ``remedy``: what would do. Both are fit for the eyes of whoever gave the URL.
    """

    def __init__(self, subject: str, fact: str, remedy: str) -> None:
        self.fact = fact
        self.remedy = remedy
        super().__init__(f"{subject}: {fact}; {remedy}")


class ForbiddenAddress(OutboundError):
    """A URL that must not be requested: malformed, an odd port, or a host inside a network that is not public."""


class Unreachable(OutboundError):
    """The other side could not be found, connected to, trusted or understood."""

    def __init__(self, host: str, cause: str) -> None:
        super().__init__(host, cause, "see that its name resolves, it listens, and its certificate is valid")


class DeadlineExceeded(OutboundError):
    """The whole request, from the name's look-up to the answer's last byte, took too long."""

    def __init__(self, host: str, deadline_s: float, doing: str) -> None:
        fact = f"not done after {deadline_s:g} s, while {doing}"
        super().__init__(host, fact, "it is too slow, or give a longer deadline_s")


class TooLarge(OutboundError):
    """The answer is longer than the caller takes."""

    def __init__(self, host: str, part: str, limit_bytes: int) -> None:
        super().__init__(host, f"{part} is longer than {limit_bytes} bytes", "ask for something smaller")
