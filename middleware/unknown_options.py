"""Unknown options: what to write instead of an option that no middleware knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Arguments of the decorator that a message cannot change.
FIXED = frozenset({"queue_name", "actor_name"})

QUEUES_RETRIES = "leave it out; the delays are the queue's, retry=RetryPolicy(delays_ms=(...)), or backoff=a function"

# Options of other libraries, of Dramatiq's own middleware and of queues, each with what to write here.
FOREIGN = {
    "countdown": "write send_with_options(delay=10_000), in milliseconds",
    "queue": "write @dramatiq.actor(queue_name=...)",
    "name": "write @dramatiq.actor(actor_name=...)",
    "timeout": "write time_limit=30_000, in milliseconds",
    "job_timeout": "write time_limit=30_000, in milliseconds",
    "soft_time_limit": "write time_limit=30_000, in milliseconds",
    "bind": "leave it out; current_job_id() returns the id of the running job",
    "autoretry_for": "leave it out, every exception is retried; name those that are not in permanent=(...,)",
    "acks_late": "leave it out, a message is always acknowledged after its job",
    "jitter": QUEUES_RETRIES,
    "retry_backoff": QUEUES_RETRIES,
    "default_retry_delay": QUEUES_RETRIES,
    "cron": 'write periodic=cron("0 2 * * *"), with periodiq\'s cron',
    "schedule": 'write periodic=cron("0 2 * * *"), with periodiq\'s cron',
    "objective_ms": "it is the queue's: write it in Queue(...)",
    "done_objective_ms": "it is the queue's: write it in Queue(...)",
    "ignore_result": "leave it out; only store_results=True keeps a result",
}


def fault_of(actor: str, what: str, unknown: Iterable[str], known: Iterable[str]) -> str:
    """Return the text of an error about unknown options of an actor or a message.

    Args:
        what: ``actor option`` or ``message option``.
        known: Names that the actor or message may have.
    """
    known = sorted(known)
    found = []
    for name in sorted(unknown):
        if name in FIXED:
            remedy = f"it is the actor's own: write it in @dramatiq.actor({name}=...)"
        elif (given := FOREIGN.get(name)) is not None:
            remedy = given
        else:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else ""
        found.append(f"{name!r} ({remedy})" if remedy else repr(name))
    return f"actor {actor}: unknown {what} {', '.join(found)}; known are {', '.join(known)}"
