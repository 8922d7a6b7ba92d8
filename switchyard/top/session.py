"""Session of an operator: pages, the chosen row, the keys. It knows nothing of a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from switchyard.frame.navigation import ROOM
from switchyard.top.text_page import TextPage, TextPlace, TextSection

CHORD_S: Final = 1.5
LONGEST_ASKED: Final = 200
PAGES: Final = {page.key: page.title for page in ROOM if page.key}
KEYS: Final = (
    ("/", "find: a job's id, or the name of an actor, queue, owner, argument, letter, alert or worker"),
    *((f"g {key}", title) for key, title in PAGES.items()),
    ("j k", "next and previous row, or line"),
    ("Enter", "open the row"),
    ("n p", "older, newer"),
    (".", "pause or resume updates"),
    ("?", "this list"),
    ("Esc", "back; on the overview leave"),
    ("q", "leave"),
)
NO_ACTS = "No key discards, cancels or changes anything: acts are on the pages and in the commands."
SAME: Final = {"Down": "j", "Up": "k", "Right": "Enter", "Left": "Escape", "Backspace": "Escape"}


@dataclass(slots=True)
class ChosenRow:
    """Where an operator is on a page.

    Args:
        number: Of the chosen row; ``None`` before any was chosen.
        opens: What it led to when it was chosen: the row may have moved since.
        line: First line of the page that is seen.
    """

    number: int | None = None
    opens: TextPlace | None = None
    line: int = 0


class TopSession:
    """Pages and keys of one operator.

    Args:
        clock: Time in seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._chord_at_s = -CHORD_S
        self.places = [TextPlace("o")]
        self.chosen = [ChosenRow()]
        self.asked: str | None = None
        self.paused_at_s: float | None = None
        self.keys_shown = False
        self.message = ""
        self.left = False

    @property
    def place(self) -> TextPlace:
        """Page that the operator looks at."""
        return self.places[-1]

    def row_of(self, page: TextPage) -> int | None:
        """Return the number of the chosen row on a page that may have changed since."""
        chosen, rows = self.chosen[-1], page.rows
        if chosen.number is None or not rows:
            return None
        if chosen.number >= len(rows) or rows[chosen.number].opens != chosen.opens:
            moved = [at for at, row in enumerate(rows) if chosen.opens is not None and row.opens == chosen.opens]
            chosen.number = moved[0] if moved else min(chosen.number, len(rows) - 1)
            chosen.opens = rows[chosen.number].opens
        return chosen.number

    def press(self, key: str, page: TextPage | None, height: int = 20) -> None:
        """Do what a key says.

        Args:
            key: A character, or ``Enter``, ``Escape``, ``Backspace``, ``Up``, ``Down``, ``PageUp``, ``PageDown``.
            page: The page that is seen; ``None`` while it is read.
            height: Lines of a page that are seen at once.
        """
        self.message = ""
        if self.asked is not None:
            self._write(key)
        elif self.keys_shown:
            self.keys_shown = False
            self.left = key == "q"
        elif self._clock() - self._chord_at_s < CHORD_S:
            self._chord_at_s = -CHORD_S
            self._go(key)
        else:
            self._act(SAME.get(key, key), page, height)

    def _act(self, key: str, page: TextPage | None, height: int) -> None:
        match key:
            case "q":
                self.left = True
            case "Escape":
                self._back()
            case "g":
                self._chord_at_s = self._clock()
            case "/":
                self.asked = ""
            case "?":
                self.keys_shown = True
            case ".":
                self.paused_at_s = self._clock() if self.paused_at_s is None else None
            case "j" | "k":
                self._move(1 if key == "j" else -1, page)
            case "PageDown" | "PageUp":
                self._scroll(height if key == "PageDown" else -height)
            case "Enter":
                self._open(page)
            case "n" | "p":
                self._turn(key, page)
            case _:
                self.message = f"{NO_ACTS} ? lists the keys." if key == "x" else "? lists the keys."

    def _write(self, key: str) -> None:
        asked = self.asked or ""
        match key:
            case "Escape":
                self.asked = None
            case "Enter":
                self.asked = None
                if asked.strip():
                    self._push(TextPlace("found", (asked.strip(),)))
            case "Backspace":
                self.asked = asked[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self.asked = (asked + key)[:LONGEST_ASKED]

    def _go(self, key: str) -> None:
        if key not in PAGES:
            self.message = f"g {key} leads nowhere; ? lists the keys."
            return
        self.places, self.chosen = [TextPlace("o")], [ChosenRow()]
        if key != "o":
            self._push(TextPlace(key))

    def _push(self, place: TextPlace) -> None:
        self.places.append(place)
        self.chosen.append(ChosenRow())

    def _back(self) -> None:
        here = self.place
        if len(self.places) == 1:
            self.left = True
            return
        while len(self.places) > 1 and (self.place.kind, self.place.of) == (here.kind, here.of):
            self._pop()

    def _pop(self) -> None:
        self.places.pop()
        self.chosen.pop()

    def _move(self, step: int, page: TextPage | None) -> None:
        if page is None or not page.rows:
            self._scroll(step)
            return
        at = self.row_of(page)
        if at is None:
            at = 0 if step > 0 else len(page.rows) - 1
        elif at == 0 and step < 0:
            # Above the first row are lines, such as what helps.
            self.chosen[-1].line = 0
        else:
            at = min(max(at + step, 0), len(page.rows) - 1)
        self.chosen[-1].number, self.chosen[-1].opens = at, page.rows[at].opens

    def _scroll(self, lines: int) -> None:
        chosen = self.chosen[-1]
        chosen.number, chosen.opens, chosen.line = None, None, max(chosen.line + lines, 0)

    def _open(self, page: TextPage | None) -> None:
        at = self.row_of(page) if page is not None else None
        if page is None or at is None:
            self.message = "No row to open: j and k go to one."
        elif (opens := page.rows[at].opens) is not None:
            self._push(opens)
        else:
            self.message = "Nothing more is known of this row."

    def _turn(self, key: str, page: TextPage | None) -> None:
        if key == "n":
            if page is not None and page.older is not None:
                self._push(page.older)
            else:
                self.message = "Nothing is older."
            return
        before = self.places[-2] if len(self.places) > 1 else None
        if before is not None and (before.kind, before.of) == (self.place.kind, self.place.of):
            self._pop()
        else:
            self.message = "Nothing is newer."


def key_page() -> TextPage:
    """Return the list of the keys."""
    lines = tuple(f"{key:7} {text}" for key, text in KEYS)
    return TextPage("Keys", (TextSection("Keys", lines=(*lines, "", NO_ACTS)),))
