"""Reads of the live screen, in a thread of their own: a key is answered at once while the broker hangs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import structlog
from django.db import DatabaseError, close_old_connections

from switchyard.broker.errors import BrokerError
from switchyard.operations.overview import Room, overview
from switchyard.top.command_page import command_page
from switchyard.top.list_pages import list_page
from switchyard.top.overview_page import overview_page
from switchyard.top.text_page import TextPage, TextPlace, TextSection

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """Last reading.

    Args:
        page: Page of ``place``; ``None`` before it was read.
        at_s: Monotonic time of the overview.
        failure: Why the last read failed, or "".
    """

    room: Room | None = None
    page: TextPage | None = None
    place: TextPlace | None = None
    at_s: float = 0.0
    failure: str = ""


class PageReader:
    """Read the overview, and the page that an operator looks at, again and again.

    Args:
        interval_s: Time between two reads.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._place = TextPlace("o")
        self._paused = False
        self._changed = threading.Event()
        self._reading = Reading()
        self._thread = threading.Thread(target=self._run, name="top", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    @property
    def reading(self) -> Reading:
        """Last reading."""
        return self._reading

    def show(self, place: TextPlace) -> None:
        """Read the page of another place from now on, and at once."""
        if place != self._place:
            self._place = place
            self._changed.set()

    def pause(self, *, paused: bool) -> None:
        """Read no more, or go on. Another place is read once all the same."""
        self._paused = paused
        self._changed.set()

    def _run(self) -> None:
        while True:
            place = self._place
            if not self._paused or self._reading.place != place:
                self._read(place)
            self._changed.wait(self._interval_s)
            self._changed.clear()

    def _read(self, place: TextPlace) -> None:
        close_old_connections()
        before = self._reading
        try:
            if place.kind != "o" and before.place != place:
                # A page that the operator asked for comes first.
                self._reading = Reading(before.room, _page(place, before.room), place, before.at_s)
            room = overview()
            self._reading = Reading(room, _page(place, room), place, time.monotonic())
        except Exception as error:
            log.warning("the terminal's page was not read", place=place.kind, exc_info=True)
            failure = f"{type(error).__name__}: {error}"
            self._reading = Reading(before.room, before.page, before.place, before.at_s, failure)


def _page(place: TextPlace, room: Room | None) -> TextPage:
    try:
        if place.kind == "o":
            return overview_page(room) if room is not None else TextPage("Overview", ())
        return command_page(place) if place.kind == "command" else list_page(place)
    except BrokerError as error:
        return _unread("The broker does not answer", str(error))
    except DatabaseError as error:
        return _unread("The database does not answer", str(error))


def _unread(title: str, why: str) -> TextPage:
    lines = (f"{title}: {why}", "This page is read again by itself.")
    return TextPage(title, (TextSection(lines=lines),))
