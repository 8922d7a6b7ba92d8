"""Repair of job records whose worker was killed between moving the message to its dead list and recording the death."""

from __future__ import annotations

from collections.abc import Sequence

from apps.platform.database_text import storable
from broker.clock import now_ms
from broker.interface import facilities
from broker.shapes import DeadLetter as Letter
from broker.stores.job_records import DEAD_TTL_MS, ENDED, LIVE_TTL_MS, Step, sequence, step
from middleware.status import ERROR_CHARACTERS

# A live worker records a death within milliseconds; after a minute the record is taken as lost.
SETTLED_MS = 60_000


def sync_dead_jobs(letters: Sequence[Letter], *, at_once: bool = False) -> int:
    """Set the job records of dead letters to dead where they have not ended; return how many changed. Safe to repeat.

    Args:
        at_once: Also those of the last minute, whose workers may still record the death.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    now = now_ms()
    # A record that has not ended expires after nine days.
    settled = now - SETTLED_MS
    recent = [it for it in letters if it.died_at > now - LIVE_TTL_MS and (at_once or it.died_at < settled)]
    if not recent:
        return 0
    records = facilities().records
    states = records.states([letter.id for letter in recent])
    late = [letter for letter, state in zip(recent, states, strict=True) if state is not None and state not in ENDED]
    return records.write([_death(letter) for letter in late]).count("written") if late else 0


def _death(letter: Letter) -> Step:
    generation = letter.message.get("options", {}).get("generation", 0)
    # Later than every step of this generation, earlier than the first of the next: a requeued job stays requeued.
    order = sequence(
        generation=generation if isinstance(generation, int) else 0, attempts=letter.attempts + 1, state="dead"
    )
    fields = {
        "attempts": letter.attempts,
        "finished_at": letter.died_at,
        "reason": letter.reason,
        "error": {"type": storable(letter.exception), "message": storable(letter.error)[:ERROR_CHARACTERS]},
    }
    return step(letter.id, sequence=order, state="dead", fields=fields, ttl_ms=DEAD_TTL_MS)
