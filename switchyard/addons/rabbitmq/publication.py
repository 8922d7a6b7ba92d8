"""Identity of a publication on a RabbitMQ server."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

# Number of a message that another library published: two of one id cannot be told apart.
NO_NUMBER: Final = b"0"
_HIGHEST: Final = (1 << 63) - 1


class Publication(NamedTuple):
    """A delivered message's id, and the number of its publication; empty for what is no message."""

    id: str = ""
    number: bytes = NO_NUMBER

    @property
    def mark(self) -> int:
        """Number of the publication, or a hash of its id, as a positive number of 63 bits."""
        if self.number != NO_NUMBER:
            return int(self.number) & _HIGHEST
        return int.from_bytes(hashlib.blake2b(self.id.encode(), digest_size=8).digest()) & _HIGHEST


# Until a delivery is read. Such a tag must be known: an acknowledgement of several would include one that is not.
UNREAD: Final = Publication()
