"""Whether jobs that ended lately are missing in the history, because nobody wrote them yet."""

from __future__ import annotations

from typing import Final

from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.history_streams import HistoryStreams
from switchyard.console.formatting import duration
from switchyard.leadership import HISTORY_WRITER, anyone_leads

# A writer that keeps up is a second or two behind.
LATE_MS: Final = 10_000


def why_missing() -> str:
    """Return why a list lacks jobs that ended lately; empty when it has all, or the broker does not answer."""
    own = facilities()
    calls, keys = own.records.calls, own.records.keys
    try:
        backlog = HistoryStreams(calls, keys, (queue.name for queue in own.yard.queues)).backlog()
        ages = [each.oldest_age_ms for each in backlog if each.oldest_age_ms is not None]
        if not ages:
            return ""
        leads = anyone_leads(calls, keys, HISTORY_WRITER)
    except BrokerError:
        return ""
    if leads and max(ages) < LATE_MS:
        return ""
    cause = (
        "the history's writer is behind"
        if leads
        else "no history writer leads, start `manage.py switchyard runhistory`"
    )
    return f"those that ended in the last {duration(max(ages))} are not all in the history: {cause}"
