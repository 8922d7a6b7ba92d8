"""Reasons why no thumbnail was made."""

from switchyard.broker.errors import SwitchyardError
from switchyard.middleware.errors import PermanentFailure


class PictureRefused(PermanentFailure):
    """A picture is invalid, contradicts its type or name, or is too costly to decode. The job is not retried."""

    def __init__(self, fact: str, remedy: str = "send another picture") -> None:
        super().__init__(f"picture: {fact}; {remedy}")


class FetchFailed(SwitchyardError):
    """A picture could not be fetched in this attempt. The job is retried."""

    def __init__(self, host: str, fact: str) -> None:
        super().__init__(f"{host}: {fact}; it is tried again")
