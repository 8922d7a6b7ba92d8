"""Notes of lapse suspects beside a RabbitMQ server: messages that may have ended a pool, and how often each did so."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

KEPT_MS: Final = 72 * 3_600_000

_LAPSE = r"\d{1,15}@[^\s,]+"
_NOTE = re.compile(rf"(\d{{1,15}}) (-|{_LAPSE}) (\+|{_LAPSE}(?:,{_LAPSE})*)")


@dataclass(frozen=True, slots=True)
class LapseRecord:
    """Note of a lapse suspect.

    Args:
        at_ms: Time of the last change.
        alone: ``<ms>@<host>`` where it runs with nothing beside it, as far as is known; else empty.
        lapses: ``<ms>@<host>`` of each end of a pool while it ran so.
    """

    at_ms: int
    alone: str = ""
    lapses: tuple[str, ...] = ()

    def after(self, *, lapsed: bool, now_ms: int) -> LapseRecord:
        """Return the note of the message's next delivery.

        Args:
            lapsed: The last one ended without a word, so that its worker ended with its supervisor, or was cut off.
        """
        lapses = tuple(lapse for lapse in self.lapses if now_ms - _ms_of(lapse) <= KEPT_MS)
        if lapsed and self.alone:
            lapses = (*lapses, f"{now_ms}@{self.alone.partition('@')[2]}")
        if not lapsed and not self.alone and lapses == self.lapses:
            return self
        return replace(self, at_ms=now_ms, alone="", lapses=lapses)

    def encode(self) -> str:
        """Return the note as it is stored."""
        return f"{self.at_ms} {self.alone or '-'} {','.join(self.lapses) or '+'}"


def decode(stored: bytes | None) -> LapseRecord | None:
    """Return a stored note; ``None`` without one that can be read."""
    found = _NOTE.fullmatch(str(stored or b"", "utf-8", "replace"))
    if found is None:
        return None
    at_ms, alone, lapses = found.groups()
    return LapseRecord(int(at_ms), "" if alone == "-" else alone, () if lapses == "+" else tuple(lapses.split(",")))


def _ms_of(lapse: str) -> int:
    return int(lapse.partition("@")[0])
