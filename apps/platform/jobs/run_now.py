"""Start of scheduled jobs before their time, by people."""

from __future__ import annotations

from apps.platform.audit.services import Who, act
from broker.admin.run_now import run_now
from broker.interface import facilities


def start_now(job_id: str, *, who: Who, reason: str = "") -> str:
    """Make a scheduled job, or one that waits for its retry, due at once; the answers are those of ``run_now``.

    Raises:
        BrokerUnavailable: the broker did not answer.
        django.db.DatabaseError: the audit log cannot be written; nothing was changed.
    """
    with act("job.run_now", who=who, target=job_id, reason=reason) as entry:
        answer = run_now(facilities(), job_id)
        entry.count, entry.detail = int(answer == "due"), {"answer": answer}
    return answer
