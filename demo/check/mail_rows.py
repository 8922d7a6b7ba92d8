"""What must become of mails."""

from __future__ import annotations

from demo.check.evidence import Evidence
from demo.check.seen import Seen, all_succeeded, longest_s, states
from demo.sample.journal import SentJob
from demo.sample.orders import RESETS, WELCOMES

PER_MINUTE = 10
DELAY_S = 20


def resets(evidence: Evidence) -> Seen:
    """See every reset mail sent once."""
    jobs = evidence.jobs("password_reset")
    mails = _mails(evidence, jobs)
    as_expected = all_succeeded(jobs) and len(jobs) == mails == RESETS
    return Seen(f"{states(jobs)}, {mails} mails", as_expected, longest_s(jobs))


def welcomes(evidence: Evidence) -> Seen:
    """See ten welcome mails sent and the rest waiting for its slot."""
    jobs = evidence.jobs("welcome")
    sent = [job for job in jobs if job.state == "succeeded"]
    held = [job for job in jobs if job.state == "scheduled" and job.reason == "rate_limit"]
    mails = _mails(evidence, jobs)
    as_expected = (len(sent), len(held), mails) == (PER_MINUTE, WELCOMES - PER_MINUTE, PER_MINUTE)
    return Seen(f"{mails} sent, {len(held)} held by the rate limit", as_expected, longest_s(sent))


def scheduled(evidence: Evidence) -> Seen:
    """See the delayed job done, and not too early."""
    jobs = evidence.jobs("later")
    if not all_succeeded(jobs):
        return Seen(states(jobs), as_expected=False)
    waited_s = jobs[0].seconds_between("enqueued_at", "started_at") or 0.0
    as_expected = waited_s >= DELAY_S and _mails(evidence, jobs) == 1
    return Seen(f"started after {waited_s:.1f} s, then sent", as_expected, longest_s(jobs))


def cancelled(evidence: Evidence) -> Seen:
    """See the cancelled job gone and no mail of it."""
    jobs = evidence.jobs("cancelled")
    is_cancelled = [job.state for job in jobs] == ["cancelled"]
    return Seen(states(jobs), is_cancelled and _mails(evidence, jobs) == 0, longest_s(jobs))


def _mails(evidence: Evidence, jobs: list[SentJob]) -> int:
    """Count the mails of some jobs; one that was sent twice counts twice."""
    ids = tuple(job.job_id for job in jobs)
    return sum(1 for mail in evidence.mails if mail.message_id.startswith(ids))
