"""Readers of event streams over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import urllib3

from switchyard.jobs import live


@dataclass
class Follower:
    """Reads a job's events in a thread of its own."""

    url: str
    headers: dict[str, str]
    status: int = 0
    answer: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        self.response: Any = None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def names(self) -> list[str]:
        return [event["event"] for event in self.events]

    def ended(self) -> bool:
        self.thread.join(30)
        return self.closed

    def _read(self) -> None:
        pool = urllib3.PoolManager(retries=False)
        self.response = pool.request("GET", self.url, headers=self.headers, preload_content=False, timeout=30)
        self.status = self.response.status
        self.answer = {name.lower(): value for name, value in self.response.headers.items()}
        event: dict[str, Any] = {}
        for line in self._lines():
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                name, _, value = line.partition(": ")
                event[name] = value
            else:
                if "event" in event:
                    self.events.append(event | {"data": json.loads(event["data"])})
                event = {}
        self.closed = True
        pool.clear()

    def _lines(self) -> Iterator[str]:
        rest = b""
        for chunk in self.response.stream(1, decode_content=False):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode() for line in lines)


def open_streams() -> int:
    return live.Stream._open.total()
