"""Identity of a publication on a RabbitMQ server."""

from __future__ import annotations

from typing import Final, NamedTuple

# Number of a message that another library published: two of one id cannot be told apart.
NO_NUMBER: Final = b"0"


class Publication(NamedTuple):
    """A delivered message's id, and the number of its publication; empty for what is no message."""

    id: str = ""
    number: bytes = NO_NUMBER


# Until a delivery is read. Such a tag must be known: an acknowledgement of several would include one that is not.
UNREAD: Final = Publication()
