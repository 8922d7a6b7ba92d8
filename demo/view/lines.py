"""What a demo without a terminal prints: one line now and then."""

from __future__ import annotations

from demo.snapshot import Snapshot
from demo.view.words import counts, duration, megabytes


def summary(seen: Snapshot) -> str:
    """Return the yard's state as one line."""
    jobs = ", ".join(f"{count} {state}" for state, count in counts(seen.jobs).items()) or "none sent"
    busy = sum(pool.busy for pool in seen.pools)
    slots = sum(pool.slots for pool in seen.pools)
    return (
        f"up {duration(seen.up_s)}: jobs {jobs}; pools {len(seen.pools)} with {busy} of {slots} slots busy; "
        f"{seen.mails} mails; memory {megabytes(seen.memory_bytes)}"
    )
