"""Floods: late queues in which most of what waits belongs to one owner while others wait as well."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from apps.platform.jobs.running import families
from apps.platform.operations.rows import Row
from broker.admin.browse import look
from broker.errors import BrokerError

# Waiting messages of a late queue whose owners are counted: half from its head, half from its end.
SAMPLE = 200
# Share of one owner from which a queue is flooded.
MOST = 0.8


@dataclass(frozen=True, slots=True)
class Flood:
    """Owner of most of what waits in a queue, and the share among the messages that were looked at."""

    owner: str
    share: float

    @property
    def text(self) -> str:
        """The share as pages say it: ``about 96 % of acme``."""
        return f"about {self.percent} of {self.owner}"

    @property
    def percent(self) -> str:
        """The share in per cent: ``96 %``."""
        return f"{self.share * 100:.0f} %"


def flood_of(row: Row) -> Flood | None:
    """Return who floods a late queue; ``None`` where few wait, nobody's are most, or nobody else waits."""
    waiting = row.waiting or 0
    # Where slots are free, something else keeps jobs from starting.
    if waiting < SAMPLE or row.busy * 2 < row.slots:
        return None
    half = SAMPLE // 2
    try:
        [family] = families([row.queue])
        pages = [look(family, "live", "waiting", cursor=at, limit=half) for at in (0, waiting - half)]
    except (ValueError, BrokerError):
        return None
    seen = [one.message for page in pages for one in page.items if one.message is not None]
    owners = Counter(str(message.options.get("owner") or "") for message in seen)
    [(owner, count)] = owners.most_common(1) or [("", 0)]
    if not owner or len(owners) < 2 or count < MOST * len(seen):
        return None
    return Flood(owner, count / len(seen))
