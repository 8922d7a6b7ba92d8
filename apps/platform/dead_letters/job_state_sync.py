"""Tells a job's record that it is dead, where its worker was killed between burying the message and saying so."""

from __future__ import annotations

from collections.abc import Sequence

from apps.platform.dead_letters.payload import clean_text
from broker.clock import now_ms
from broker.interface import facilities
from broker.shapes import DeadLetter as Letter
from broker.stores.job_records import DEAD_TTL_MS, ENDED, LIVE_TTL_MS, Step, sequence, step
from middleware.status import ERROR_CHARACTERS

# A worker says so within milliseconds; after a minute it is not about to.
SETTLED_MS = 60_000


def record_deaths(letters: Sequence[Letter]) -> int:
    """Record jobs as dead that are, and whose records say otherwise; return how many were. Safe to repeat.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    now = now_ms()
    # A record that has not ended is gone after nine days.
    told = [letter for letter in letters if now - LIVE_TTL_MS < letter.died_at < now - SETTLED_MS]
    if not told:
        return 0
    records = facilities().records
    states = records.states([letter.id for letter in told])
    late = [letter for letter, state in zip(told, states, strict=True) if state is not None and state not in ENDED]
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
        "error": {"type": clean_text(letter.exception), "message": clean_text(letter.error)[:ERROR_CHARACTERS]},
    }
    return step(letter.id, sequence=order, state="dead", fields=told, ttl_ms=DEAD_TTL_MS)
