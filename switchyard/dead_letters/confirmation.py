"""Texts of the page that asks before a destructive or bulk action."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from switchyard.console.formatting import between
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.presentation import letters

PAST = {"acknowledge": "Acknowledged", "requeue": "Requeued", "discard": "Discarded", "restore": "Restored"}
CONSEQUENCES = {
    "acknowledge": ("Nothing moves:", "{they} {stay} where {they} {are}, marked as known."),
    "requeue": ("{They} {run} again,", "from the first attempt. What was done before the failure may be done twice."),
    "discard": ("{They} will never run.", "The sender gets no result and no notice."),
    "restore": ("{They} {come} back as new dead letters.", "Nothing runs before {they} {are} requeued."),
}
ONE = {"they": "it", "They": "It", "them": "it", "stay": "stays", "are": "is", "run": "runs", "come": "comes"}
MANY = {"they": "they", "They": "They", "them": "them", "stay": "stay", "are": "are", "run": "run", "come": "come"}
UNDO = {
    "acknowledge": "Not needed: it is only a mark.",
    "requeue": "Cancel the job while it waits. What fails again comes back as a dead letter.",
    "discard": "Restore, for 90 days: Dead letters, Discarded. Then the messages are erased.",
    "restore": "Discard them again.",
}
INSTEAD = {
    "discard": "Acknowledge: it moves nothing, and you decide later. Or requeue one, and see whether it fails again.",
    "requeue": "Edit and requeue a single letter, where its arguments are wrong.",
}


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A confirmation question with its facts.

    Args:
        to: URL the answer is posted to; "" is the page itself.
        back: URL of "Keep them".
        ids: Primary keys of the rows, separated by commas.
    """

    TYPED_ABOVE: ClassVar[int] = 100

    action: str
    count: int
    title: str
    headline: str
    tail: str
    facts: tuple[tuple[str, str], ...]
    button: str
    to: str
    back: str
    ids: str

    @property
    def destructive(self) -> bool:
        """Return whether the action cannot be undone."""
        return self.action == "discard"

    @property
    def needs_broker(self) -> bool:
        """Return whether the action moves letters; a mark is only in the database."""
        return self.action != "acknowledge"

    @property
    def typed(self) -> bool:
        """Return whether the operator must type the count."""
        return self.count > self.TYPED_ABOVE


def of_rows(action: str, rows: Sequence[DeadLetter], *, to: str = "", back: str) -> Confirmation:
    """Return the question whether to apply ``action`` to these rows."""
    count = len(rows)
    headline, tail = (text.format(**(ONE if count == 1 else MANY)) for text in CONSEQUENCES[action])
    causes = sorted({f"{row.exception} in {row.actor}" for row in rows})
    shown = ", ".join(causes[:3]) + (f" and {len(causes) - 3} more" if len(causes) > 3 else "")
    queues = ", ".join(sorted({row.queue for row in rows}))
    first, last = min(row.died_at for row in rows), max(row.died_at for row in rows)
    facts = (
        ("Failures", shown),
        ("Letters", f"{count:,}, died {between(first, last)}. Later ones are not touched."),
        ("Queues", queues),
        *((("Owners", owners),) if (owners := _owners(rows)) else ()),
        ("Undo", UNDO[action]),
        *((("Instead", INSTEAD[action]),) if action in INSTEAD else ()),
    )
    return Confirmation(
        action=action,
        count=count,
        title=f"{action.capitalize()} {letters(count)}?",
        headline=headline,
        tail=tail,
        facts=facts,
        button=f"{action.capitalize()} {count:,} letter{'' if count == 1 else 's'}",
        to=to,
        back=back,
        ids=",".join(str(row.pk) for row in rows),
    )


def _owners(rows: Sequence[DeadLetter]) -> str:
    """Return whose jobs are hit, the most first; "" where no letter names an owner."""
    options = [row.payload.get("options") if isinstance(row.payload, dict) else None for row in rows]
    counted = Counter(str(each["owner"])[:80] for each in options if isinstance(each, dict) and each.get("owner"))
    named = [f"{owner} ({count:,})" for owner, count in counted.most_common(3)]
    more = f" and {len(counted) - 3:,} more" if len(counted) > 3 else ""
    return f"{', '.join(named)}{more}"
