"""What is kept of an actor's jobs after their end: options of actors."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from dramatiq.actor import Actor
from dramatiq.broker import Broker

from switchyard.broker.validation import LONGEST_DELAY_MS, is_whole
from switchyard.middleware.arguments import missing_arguments
from switchyard.middleware.option_rules import OptionRule, flag, rule_of_both

HISTORIES: Final = ("all", "failures", "none")
FAILED: Final = frozenset({"dead", "expired", "retrying"})
MOST_SEARCHED: Final = 5


class RecordOptions(NamedTuple):
    """Options of an actor.

    Args:
        history: Jobs that get a row in the history: ``"all"``, ``"failures"`` (also attempts that were retried),
            ``"none"``, or a share of them from 0 to 1.
        result_ttl: Milliseconds that a result is kept in the broker, where that is longer than other records.
        keep_logs: Keep the log lines of every attempt, and not of the failed ones alone.
        search: Names of arguments by whose values jobs are found in the history.
        actor: The actor itself.
    """

    track: bool = True
    store_results: bool = False
    history: str | float = "all"
    result_ttl: int = 0
    keep_logs: bool = False
    search: Sequence[str] = ()
    actor: Actor[..., Any] | None = None

    @classmethod
    def of(cls, actor: Actor[..., Any] | None) -> RecordOptions:
        """Return the options of an actor, those of none by default."""
        if actor is None:
            return cls()
        given = {name: actor.options[name] for name in cls._fields if actor.options.get(name) is not None}
        return cls(**given, actor=actor)

    def in_history(self, job_id: str, state: str) -> bool:
        """Return whether an ended attempt gets a row; a share is decided by the job's id, alike for all attempts."""
        if self.history == "all":
            return True
        if self.history == "failures":
            return state in FAILED
        return isinstance(self.history, int | float) and zlib.crc32(job_id.encode()) < self.history * 2**32


ALWAYS: Final = RecordOptions()


class ActorRecords(dict[str, RecordOptions]):
    """Cache of the options of each actor, by name.

    Attributes:
        plain: Actors all of whose successes are recorded by their end alone: no results, no log lines, no share.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plain: set[str] = set()

    def of(self, broker: Broker, actor_name: str) -> RecordOptions:
        """Return the options of an actor; of an unknown one the defaults, which are not cached."""
        kept = self.get(actor_name)
        if kept is None:
            kept = RecordOptions.of(broker.actors.get(actor_name))
            if actor_name in broker.actors:
                self[actor_name] = kept
                if kept.track is True and kept.history == "all" and not kept.store_results and not kept.keep_logs:
                    self.plain.add(actor_name)
        return kept

    def forget(self, actor_name: str) -> None:
        """Drop the options of an actor that is declared again, as by a test or another definition of its name."""
        self.pop(actor_name, None)
        self.plain.discard(actor_name)

    def tracked(self, broker: Broker, message: Any) -> bool:
        """Return whether a message's job is recorded: its own option, else that of its actor."""
        asked = message.options.get("track")
        return asked if isinstance(asked, bool) else self.of(broker, message.actor_name).track

    def succeeds_plainly(self, message: Any) -> bool:
        """Return whether the success of a message is recorded by its end alone."""
        options = message.options
        return message.actor_name in self.plain and "track" not in options and "store_results" not in options


def record_rules() -> tuple[OptionRule, ...]:
    """Return the rules of the options."""
    return (
        rule_of_both("store_results", flag),
        rule_of_both("track", flag),
        OptionRule("history", lambda value, actor: _history(value)),
        rule_of_both("result_ttl", lambda value: _milliseconds(value)),
        OptionRule("keep_logs", lambda value, actor: flag(value)),
        OptionRule("search", _searchable),
    )


def _history(value: Any) -> str:
    is_share = type(value) in (int, float) and 0 <= value <= 1
    named = isinstance(value, str) and value in HISTORIES
    return "" if is_share or named else 'write "all", "failures", "none", or a share such as 0.1'


def _milliseconds(value: Any) -> str:
    fits = is_whole(value, most=LONGEST_DELAY_MS) and value > 0
    return "" if fits else f"write milliseconds, from 1 to {LONGEST_DELAY_MS}"


def _searchable(value: Any, actor: Actor[..., Any]) -> str:
    """Return what to write instead of names of arguments."""
    remedy = f'write up to {MOST_SEARCHED} names of arguments, such as ("customer_id",)'
    if isinstance(value, str) or not isinstance(value, Sequence) or not 1 <= len(value) <= MOST_SEARCHED:
        return remedy
    if not all(isinstance(name, str) and name for name in value):
        return remedy
    missing = missing_arguments(actor, value)
    return f"{remedy}; {missing}" if missing else ""
