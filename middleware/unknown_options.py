"""Unknown options: what to write instead of an option that no middleware knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Arguments of the decorator that a message cannot change.
FIXED = frozenset({"queue_name", "actor_name"})


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
        else:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else ""
        found.append(f"{name!r} ({remedy})" if remedy else repr(name))
    return f"actor {actor}: unknown {what} {', '.join(found)}; known are {', '.join(known)}"
