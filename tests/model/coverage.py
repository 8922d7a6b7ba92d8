"""Coverage of a run of the machine: the places, steps and events that it has visited."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import event

from tests.model.keyspace import ACTIVE, DEAD, FINISHED, NOWHERE, QUARANTINED, SCHEDULED, STATES, WAITING

Transition = tuple[str, str, str]

# Operation, where a message was, where it is then: everything that may happen to one.
TRANSITIONS: frozenset[Transition] = frozenset(
    {
        ("enqueue", NOWHERE, WAITING), ("enqueue", NOWHERE, SCHEDULED), ("stray", NOWHERE, WAITING),
        ("fetch", WAITING, ACTIVE),
        ("fetch", WAITING, FINISHED),  # cancelled
        ("fetch", SCHEDULED, ACTIVE), ("fetch", SCHEDULED, WAITING),
        ("fetch", ACTIVE, FINISHED),  # acknowledged with it
        ("ack", ACTIVE, FINISHED), ("move", ACTIVE, WAITING), ("move", ACTIVE, SCHEDULED),
        ("isolate", ACTIVE, WAITING), ("take", WAITING, ACTIVE), ("adopt", SCHEDULED, ACTIVE),
        ("forget", ACTIVE, NOWHERE), ("place", NOWHERE, WAITING), ("dead_letter", ACTIVE, DEAD),
        ("quarantine", ACTIVE, QUARANTINED), ("release", ACTIVE, WAITING), ("reclaim", ACTIVE, WAITING),
        ("reclaim", ACTIVE, FINISHED),
        ("reclaim", ACTIVE, ACTIVE),  # to the heir
        ("requeue", DEAD, WAITING), ("discard", DEAD, FINISHED), ("cancel", SCHEDULED, FINISHED),
        ("flush", WAITING, NOWHERE), ("flush", SCHEDULED, NOWHERE), ("flush", ACTIVE, NOWHERE),
        ("advance", FINISHED, NOWHERE), ("advance", QUARANTINED, NOWHERE),
    }
)  # fmt: skip

# Too seldom to be required: a message that was cancelled while it waited, taken with that request, moved
# to a later time, and dropped by the fetch that promotes it.
SELDOM: frozenset[Transition] = frozenset({("fetch", SCHEDULED, FINISHED)})

# Events that must also have occurred; the machine reports each by its name.
HAPPENINGS = frozenset(
    {
        "repeated call", "repeated fetch", "stale token", "wrong owner", "late repeat", "lost lease", "paused",
        "rearmed", "unique key", "queue full", "server full", "server unsafe", "server killed", "scripts flushed",
        "counted lapse", "due early", "amended",
        "crash limit", "heir gone", "asked to stop", "asked when taken", "hard limit", "missing body", "malformed body",
    }
)  # fmt: skip

STATE_SHARE = 0.05  # of the examples, in which a state is to be visited


@dataclass
class Coverage:
    """Counts of one run; :meth:`check` them at its end."""

    examples: int = 0
    states: Counter[str] = field(default_factory=Counter)  # examples that visited one
    transitions: Counter[Transition] = field(default_factory=Counter)
    happenings: Counter[str] = field(default_factory=Counter)

    def example(self, visited: Iterable[str]) -> None:
        self.examples += 1
        for state in visited:
            self.states[state] += 1
            event(f"state {state}")

    def transition(self, operation: str, before: str, after: str) -> None:
        self.transitions[operation, before, after] += 1

    def happened(self, what: str) -> None:
        if what not in HAPPENINGS:
            raise ValueError(f"{what!r} is none of the happenings that are to be covered")
        self.happenings[what] += 1

    def check(self) -> None:
        assert self.examples, "no example ran"
        rare = {state: self.states[state] for state in STATES if self.states[state] < STATE_SHARE * self.examples}
        assert not rare, f"states visited in too few of {self.examples} examples: {rare}"
        assert set(self.transitions) - SELDOM == TRANSITIONS, (
            f"transitions never made: {TRANSITIONS - set(self.transitions)}; "
            f"made, but not foreseen: {set(self.transitions) - TRANSITIONS - SELDOM}"
        )
        assert not HAPPENINGS - set(self.happenings), f"never happened: {HAPPENINGS - set(self.happenings)}"

    def table(self) -> str:
        lines = [f"{self.examples} examples"]
        lines += [f"  {state:<12} in {self.states[state] / max(self.examples, 1):4.0%} of them" for state in STATES]
        lines += [
            f"  {' '.join(made[:1]):<12} {made[1]} → {made[2]}: {n}" for made, n in sorted(self.transitions.items())
        ]
        lines += [f"  {what}: {count}" for what, count in sorted(self.happenings.items())]
        return "\n".join(lines)
