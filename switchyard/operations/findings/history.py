"""Checks of the history: a writer leads, keeps up, and lost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from switchyard.broker.health.servers import servers_of
from switchyard.broker.redis.access import calls_on
from switchyard.broker.stores.history_streams import HistoryStreams
from switchyard.conf import declared_yard
from switchyard.console.formatting import counted, duration
from switchyard.leadership import HISTORY_WRITER, anyone_leads
from switchyard.operations.findings.finding import Finding, FindingGroup
from switchyard.operations.findings.snapshot import quick_client

GROUP = FindingGroup("history")
BEHIND_MS = 60_000


def look() -> Iterator[Finding]:
    """Check the writer's lease and the streams in the broker.

    Raises:
        BrokerError: the broker does not answer.
    """
    keys = declared_yard().keys
    with quick_client() as client, closing(calls_on(client, budget_s=1.0)) as calls:
        queues = [queue.name for queue in declared_yard().queues]
        away = servers_of(calls, keys, queues).away().queues
        streams = HistoryStreams(calls, keys, (queue for queue in queues if queue not in away))
        leads = anyone_leads(calls, keys, HISTORY_WRITER)
        backlog, counts = streams.backlog(), streams.counts()
    oldest_ms = max((each.oldest_age_ms or 0 for each in backlog), default=0)
    waits = f"the oldest jobs that ended wait {duration(oldest_ms)} to be written" if oldest_ms else "nothing waits"
    if not leads:
        cause = "No history writer runs; the broker keeps what fits its budget, and drops the oldest rows then"
        yield GROUP.warning("down", f"no history writer leads; {waits}", cause, "manage.py switchyard runhistory")
    elif oldest_ms > BEHIND_MS:
        cause = "The database does not answer or refuses to write, or jobs end faster than the writer writes"
        yield GROUP.warning(
            "behind", waits, cause, "Read the log of manage.py switchyard runhistory, then the database findings"
        )
    else:
        yield GROUP.ok(f"a history writer leads; {counted(counts['written'], 'row')} written, {waits}")
    for each in backlog:
        if each.dropped:
            rows = counted(each.dropped, "row")
            were = "was" if each.dropped == 1 else "were"
            seen = f"{rows} of {each.queue} {were} dropped: the history has a gap"
            cause = "They outgrew the budget of bytes while no writer wrote or the database was away"
            step = f"Once read: valkey-cli HDEL '{keys.queue(each.queue).ended}' dropped"
            yield GROUP.warning("dropped", seen, cause, step, each.queue)
    if counts["skipped"]:
        rows, were = counted(counts["skipped"], "row"), "was" if counts["skipped"] == 1 else "were"
        seen = f"{rows} could not be read or stored, and {were} skipped"
        cause = "Another program, or a release that writes another form, added them; the log of runhistory names each"
        yield GROUP.warning("skipped", seen, cause, f"Once read: valkey-cli HDEL {keys.history_counts()} skipped")
