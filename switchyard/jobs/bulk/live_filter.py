"""Comparison of messages in the broker with the filter of the list of jobs."""

from __future__ import annotations

from typing import Any, Final

from dramatiq.message import Message

from switchyard.history.filters import Filter
from switchyard.history.search_values import search_text
from switchyard.jobs.shown_arguments import shown_arguments
from switchyard.middleware.redaction import HIDDEN

LIVE_STATES: Final = ("queued", "scheduled", "running", "retrying")
# Known of ended attempts only.
ENDED_ONLY: Final = ("error", "fingerprint", "release", "failures")


def live_filter(query: dict[str, Any]) -> Filter:
    """Return a filter of jobs that have not ended; ``since`` and ``until`` are of their enqueueing.

    Raises:
        ValueError: a field is not known, has no valid value, or is known of ended jobs only.
    """
    wanted = Filter.from_query(query).fixed()
    for name in ENDED_ONLY:
        if getattr(wanted, name):
            raise ValueError(f"{name}: is known of ended jobs only; leave it out, or name jobs that wait or run")
    if wanted.states and not set(wanted.states) & set(LIVE_STATES):
        raise ValueError(f"state: {','.join(wanted.states)} have ended; there are {', '.join(LIVE_STATES)}")
    return wanted


class Matcher:
    """Comparison with one filter; times are read once."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._since, self._until = wanted.since_ms, wanted.until_ms

    def matches(self, message: Message[Any], state: str) -> bool:
        """Return whether a message that waits, is scheduled or runs matches. Its queue is not compared."""
        wanted, options = self._wanted, message.options
        if wanted.states and state not in wanted.states:
            return False
        if wanted.actor and message.actor_name != wanted.actor:
            return False
        if wanted.owner and str(options.get("owner", "")) != wanted.owner:
            return False
        if wanted.parent and options.get("parent") != wanted.parent:
            return False
        if wanted.tag and wanted.tag not in _texts(options.get("tags")):
            return False
        sent = int(options.get("enqueued_at", message.message_timestamp))
        if (self._since is not None and sent < self._since) or (self._until is not None and sent >= self._until):
            return False
        return wanted.argument is None or _has_argument(message, *wanted.argument)


def _texts(tags: Any) -> list[str]:
    return [str(tag) for tag in tags] if isinstance(tags, list | tuple) else []


def _has_argument(message: Message[Any], name: str, value: str) -> bool:
    found = shown_arguments(message.actor_name, message.args, message.kwargs).get(name)
    return found != HIDDEN and search_text(found) == search_text(value)
