"""What the yard must tell of itself."""

from __future__ import annotations

from demo.check.evidence import Evidence
from demo.check.seen import Seen

METRICS = (
    "switchyard_queue_depth",
    "switchyard_queue_oldest_age_seconds",
    "switchyard_message_wait_seconds_bucket",
    "switchyard_message_duration_seconds_bucket",
    "switchyard_messages_total",
    "switchyard_retries_total",
    "switchyard_dead_letters",
    "switchyard_worker_up",
    "switchyard_worker_slots",
    "switchyard_worker_slots_busy",
)


def metrics(evidence: Evidence) -> Seen:
    """See every metric that people on call ask for."""
    samples = {line.split("{")[0].split(" ")[0] for line in evidence.text_of("/metrics").splitlines()}
    missing = [name for name in METRICS if name not in samples]
    if missing:
        return Seen(f"missing {', '.join(missing)}", as_expected=False)
    return Seen(f"all {len(METRICS)} of them", as_expected=True)
