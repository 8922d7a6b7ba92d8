"""Metrics of the history, read from the broker at each scrape."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from switchyard.broker.health.servers import servers_of
from switchyard.broker.interface import facilities
from switchyard.broker.stores.history_streams import HistoryStreams
from switchyard.long_running import HISTORY_WRITER, anyone_leads


def history_metrics() -> list[Metric]:
    """Return the metric families; ``BrokerError`` where the broker does not answer."""
    own = facilities()
    calls, keys = own.records.calls, own.records.keys
    queues = [queue.name for queue in own.yard.queues]
    away = servers_of(calls, keys, queues).away().queues
    streams = HistoryStreams(calls, keys, (queue for queue in queues if queue not in away))
    leads = anyone_leads(calls, keys, HISTORY_WRITER)
    counts, skipped = streams.counts(), "Ended attempts that could not be read or stored."
    text = "Age of the oldest ended attempt that is not written yet; 0 when none waits."
    lag = GaugeMetricFamily("switchyard_history_lag_seconds", text, labels=("queue",))
    text = "Ended attempts lost to the budget before they were written."
    dropped = CounterMetricFamily("switchyard_history_dropped", text, labels=("queue",))
    for each in streams.backlog():
        lag.add_metric((each.queue,), (each.oldest_age_ms or 0) / 1_000)
        dropped.add_metric((each.queue,), each.dropped)
    return [
        GaugeMetricFamily("switchyard_history_writer_up", "Whether a history writer leads.", value=int(leads)),
        CounterMetricFamily("switchyard_history_written", "Ended attempts written.", value=counts["written"]),
        CounterMetricFamily("switchyard_history_skipped", skipped, value=counts["skipped"]),
        lag,
        dropped,
    ]
