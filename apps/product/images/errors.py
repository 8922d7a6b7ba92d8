"""Why no thumbnail was made."""

from __future__ import annotations

from broker.errors import SwitchyardError
from middleware.errors import PermanentFailure


class PictureRefused(PermanentFailure):
    """A picture that is none, lies about itself, or would take too much to open. It is never tried again."""

    def __init__(self, fact: str, remedy: str = "send another picture") -> None:
        super().__init__(f"picture: {fact}; {remedy}")


class FetchFailed(SwitchyardError):
    """A picture could not be fetched this time."""

    def __init__(self, host: str, fact: str) -> None:
        super().__init__(f"{host}: {fact}; it is tried again")
