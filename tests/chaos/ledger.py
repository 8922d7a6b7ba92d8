"""Ledger of jobs attempted, accepted, started, failed, completed and buried, written as it happens, and its audit."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PHASES = ("attempted", "accepted", "refused", "started", "failed", "completed", "buried")
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a ledger; ``at_s`` is monotonic and the same clock for all processes of the machine."""

    phase: str
    job: str
    pid: int
    at_s: float


class Ledger:
    """A file that any number of threads and processes append to, a line at a time.

    A line is one ``write`` with ``O_APPEND``: it is there whole or not at all, also after ``kill -9``.

    One thread reads it.

    Args:
        path: Made when missing.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._entries: list[Entry] = []
        self._read_bytes, self._reading = 0, threading.Lock()

    def note(self, phase: str, job: str) -> None:
        """Append that a job came to a phase.

        Raises:
            ValueError: no such phase, or a job whose name would break the line.
        """
        if phase not in PHASES or not job or set(job) & set(" \n"):
            raise ValueError(f"phase must be one of {', '.join(PHASES)} and job one word, got {phase!r}, {job!r}")
        os.write(self._file, f"{phase} {job} {os.getpid()} {time.monotonic():.6f}\n".encode())

    def entries(self) -> list[Entry]:
        """Return everything noted so far, in order. Only what is new is read: ask as often as you like."""
        with self._reading:  # jobs of several threads ask as well
            with self.path.open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
            new = new[: new.rfind(b"\n") + 1]
            self._read_bytes += len(new)
            for line in new.decode().splitlines():
                phase, job, pid, at_s = line.split()
                self._entries.append(Entry(phase, job, int(pid), float(at_s)))
            return self._entries

    def jobs(self, phase: str) -> list[str]:
        """Return the jobs that came to a phase, as often as they did."""
        return [entry.job for entry in self.entries() if entry.phase == phase]

    def of(self, phase: str, job: str) -> list[Entry]:
        return [entry for entry in self.entries() if entry.phase == phase and entry.job == job]

    def account(self) -> Account:
        return account(self.entries())

    def none_lost(self) -> Account:
        found = self.account()
        assert (found.lost, found.unexpected) == ((), ()), f"{found}"
        return found

    def each_once(self) -> Account:
        found = self.none_lost()
        assert found.duplicated == (), f"{found}"
        return found

    def close(self) -> None:
        os.close(self._file)


@dataclass(frozen=True)
class Account:
    """How a history stands.

    Args:
        attempted, accepted, completed: Jobs, each once.
        dead: Accepted, never completed, and found in the dead list instead.
        lost: Accepted, never completed, and no dead letter.
        duplicated: Completed again, named once for each time too many.
        unexpected: Completed, though nobody attempted to enqueue them.
        recovered: Not accepted (refused, or no answer), and completed nevertheless: the error said "unknown".
    """

    attempted: tuple[str, ...]
    accepted: tuple[str, ...]
    completed: tuple[str, ...]
    dead: tuple[str, ...]
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    unexpected: tuple[str, ...]
    recovered: tuple[str, ...]

    def __str__(self) -> str:
        counts = "  ".join(f"{name} {len(jobs)}" for name, jobs in vars(self).items())
        named = [
            f"{name}: {', '.join(jobs[:SHOWN])}{' …' if len(jobs) > SHOWN else ''}"
            for name, jobs in vars(self).items()
            if jobs and name in ("dead", "lost", "duplicated", "unexpected")
        ]
        return "\n".join([counts, *named])


def account(entries: Iterable[Entry]) -> Account:
    seen: dict[str, Counter[str]] = {phase: Counter() for phase in PHASES}
    for entry in entries:
        seen[entry.phase][entry.job] += 1
    attempted, accepted, completed, buried = (seen[name] for name in ("attempted", "accepted", "completed", "buried"))
    return Account(
        attempted=tuple(attempted),
        accepted=tuple(accepted),
        completed=tuple(completed),
        dead=tuple(job for job in accepted if job in buried and job not in completed),
        lost=tuple(job for job in accepted if job not in buried and job not in completed),
        duplicated=tuple((completed - Counter(dict.fromkeys(completed, 1))).elements()),
        unexpected=tuple(job for job in completed if job not in attempted and job not in accepted),
        recovered=tuple(job for job in completed if job in attempted and job not in accepted),
    )
