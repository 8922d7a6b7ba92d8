"""Place in a list of the history, from which its next page goes on."""

from __future__ import annotations

import re
from dataclasses import dataclass

LAST_ROW = 10**18 - 1
_CURSOR = re.compile(r"([0-9]{1,15})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Time (ms since the epoch) and number of the last row that was looked at. As text: ``1763728200000-42``."""

    at: int
    row: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor in a text.

        Raises:
            ValueError: there is none.
        """
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ValueError(f"after: {text!r:.100} is no place in a list; begin with its first page")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.at}-{self.row}"
