"""Errors of outgoing requests. Messages contain no path, query or user of a URL, as these may be secrets."""

from switchyard.broker.errors import SwitchyardError


class OutboundError(SwitchyardError):
    """An outgoing request got no usable response.

    Args:
        subject: The host, as far as it was parsed.
        fact: Cause; ``remedy``: remedy. Both may be shown to the author of the URL.
    """

    def __init__(self, subject: str, fact: str, remedy: str) -> None:
        self.fact = fact
        self.remedy = remedy
        super().__init__(f"{subject}: {fact}; {remedy}")


class ForbiddenAddress(OutboundError):
    """A URL that must not be requested: malformed, an odd port, or a host inside a network that is not public."""


class Unreachable(OutboundError):
    """The server could not be resolved, connected to, trusted or understood."""

    def __init__(self, host: str, cause: str) -> None:
        super().__init__(host, cause, "see that its name resolves, it listens, and its certificate is valid")


class DeadlineExceeded(OutboundError):
    """The request, from DNS look-up to the last byte of the response, exceeded its deadline."""

    def __init__(self, host: str, deadline_s: float, doing: str) -> None:
        fact = f"not done after {deadline_s:g} s, while {doing}"
        super().__init__(host, fact, "it is too slow, or give a longer deadline_s")


class TooLarge(OutboundError):
    """The response is longer than the caller's limit."""

    def __init__(self, host: str, part: str, limit_bytes: int) -> None:
        super().__init__(host, f"{part} is longer than {limit_bytes} bytes", "ask for something smaller")
