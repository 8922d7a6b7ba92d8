"""Cases, what their actors did, and a middleware of the project's own that notes it, as Dramatiq's guide shows."""

from collections import defaultdict
from collections.abc import Callable
from threading import Lock
from typing import Any

import dramatiq

# Each sends its messages, and returns a function that reads what came of them once all have ended.
Case = Callable[[], Callable[[], Any]]
CASES: dict[str, Case] = {}
_entries: defaultdict[str, list[Any]] = defaultdict(list)
_lock = Lock()


def case(send: Case) -> Case:
    """Register a case under its function's name."""
    CASES[send.__name__] = send
    return send


def note(case: str, value: Any = None) -> int:
    """Note an event; return how many there are of its case."""
    with _lock:
        _entries[case].append(value)
        return len(_entries[case])


def of(case: str) -> list[Any]:
    return list(_entries[case])


def count(case: str) -> int:
    return len(_entries[case])


class Audit(dramatiq.Middleware):
    """Note the ends of actors with ``audited=True``, and of messages with their own."""

    @property
    def actor_options(self) -> set[str]:
        return {"audited"}

    def after_process_message(self, broker: Any, message: Any, *, result: Any = None, exception: Any = None) -> None:
        actor = broker.get_actor(message.actor_name)
        if message.options.get("audited", actor.options.get("audited")):
            note("audit", (message.actor_name, result, type(exception).__name__))
