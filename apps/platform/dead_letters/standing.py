"""Tells a job's record that it is dead, where its worker was killed between burying the message and saying so."""

from __future__ import annotations

import time
from collections.abc import Sequence

from broker.interface import DeadLetter as Letter
from broker.interface import facilities
from broker.records import DEAD_TTL_MS, ENDED, Step, sequence, step
from middleware.status import ERROR_CHARACTERS

# A worker says so within milliseconds, and after a minute it is not about to. A record that is older than an hour was
# looked at a hundred times by then.
LATEST_MS, EARLIEST_MS = 60_000, 3_600_000


def record_deaths(letters: Sequence[Letter]) -> int:
    """Record jobs as dead that are, and whose records say otherwise; return how many were. Safe to repeat.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    now = time.time_ns() // 1_000_000
    recent = [letter for letter in letters if now - EARLIEST_MS < letter.died_at < now - LATEST_MS]
    if not recent:
        return 0
    records = facilities().records
    states = records.states([letter.id for letter in recent])
    late = [letter for letter, state in zip(recent, states, strict=True) if state is not None and state not in ENDED]
    return records.write([_death(letter) for letter in late]).count("written") if late else 0


def _death(letter: Letter) -> Step:
    generation = letter.message.get("options", {}).get("generation", 0)
    # After all that was recorded of this life, and before the first of the next: one that was requeued stays so.
    order = sequence(
        generation=generation if isinstance(generation, int) else 0, attempts=letter.attempts + 1, state="dead"
    )
    told = {
        "attempts": letter.attempts,
        "finished_at": letter.died_at,
        "reason": letter.reason,
        "error": {"type": letter.exception, "message": letter.error[:ERROR_CHARACTERS]},
    }
    return step(letter.id, sequence=order, state="dead", fields=told, ttl_ms=DEAD_TTL_MS)
