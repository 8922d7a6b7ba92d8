"""Detection of keys with a wrong Redis type, on which every operation would fail with WRONGTYPE."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from switchyard.broker.health.server import ServerFinding
from switchyard.broker.keys.queue_keys import QueueKeys

SHOWN = 3


def type_commands(families: Iterable[QueueKeys]) -> list[tuple[str, str]]:
    """Return the commands whose answers :func:`wrong_types` reads."""
    return [("TYPE", key) for keys in families for key, _ in keys.kinds()]


def wrong_types(families: Iterable[QueueKeys], answers: Sequence[Any]) -> list[ServerFinding]:
    """Return a finding when a key is of a type that it must not have."""
    expected = [pair for keys in families for pair in keys.kinds()]
    wrong = [
        key
        for (key, kind), answer in zip(expected, answers, strict=True)
        if isinstance(answer, bytes) and answer not in (b"none", kind.encode())
    ]
    if not wrong:
        return []
    one = len(wrong) == 1
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return [
        ServerFinding(
            "wrong_type",
            "error",
            f"something else wrote to {len(wrong)} {'key' if one else 'keys'} of the broker: "
            f"{', '.join(wrong[:SHOWN])}{more} {'holds what it never does' if one else 'hold what they never do'}",
            "Give Switchyard a server or a database of its own; look at these keys, then delete or rename them.",
        )
    ]
