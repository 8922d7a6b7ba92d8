"""Place in a list of jobs that come from the broker and from the history: one place in each."""

from __future__ import annotations

from dataclasses import dataclass

from switchyard.history.cursors import Cursor

_END = "-"
_LONGEST_ID = 200


@dataclass(frozen=True, slots=True)
class ListCursor:
    """Places after which a list's next page goes on.

    As text: ``<place in the history>~<place in the broker>``, each empty at the beginning and ``-`` at the end.

    Args:
        live: Time of enqueueing (ms since the epoch) and id of the last unfinished job that was listed.
        ended: Place in the history.
        live_over, ended_over: Nothing more comes from there.
    """

    live: tuple[int, str] | None = None
    ended: Cursor | None = None
    live_over: bool = False
    ended_over: bool = False

    @classmethod
    def parse(cls, text: str) -> ListCursor:
        """Return the cursor in a text; the beginning for an empty one.

        Raises:
            ValueError: there is none.
        """
        if not text:
            return cls()
        ended, tilde, live = text.partition("~")
        at, _, job_id = live.partition(".")
        usable = tilde and (live in ("", _END) or (at.isdecimal() and len(at) <= 15 and 0 < len(job_id) <= _LONGEST_ID))
        if not usable:
            raise ValueError(f"after: {text!r:.100} is no place in a list; begin with its first page")
        return cls(
            live=(int(at), job_id) if job_id else None,
            ended=Cursor.parse(ended) if ended not in ("", _END) else None,
            live_over=live == _END,
            ended_over=ended == _END,
        )

    def __str__(self) -> str:
        ended = _END if self.ended_over else "" if self.ended is None else str(self.ended)
        live = _END if self.live_over else "" if self.live is None else f"{self.live[0]}.{self.live[1]}"
        return f"{ended}~{live}"
