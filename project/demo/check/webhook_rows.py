"""What must become of webhook deliveries: the live queue for the first attempt, the retry lane for the others."""

from __future__ import annotations

from project.demo.check.evidence import Evidence
from project.demo.check.seen import Seen, all_succeeded, longest_s, states
from project.demo.environment import ALERT_MAILBOX

ATTEMPTS = 6
LETTERS = "select count(*) from dead_letters_deadletter where message_id = ?"


def healthy(evidence: Evidence) -> Seen:
    """See every delivery taken at its first attempt."""
    jobs = evidence.jobs("webhook_healthy")
    first = sum(job.attempts == 1 for job in jobs)
    return Seen(f"{states(jobs)}, {first} at attempt 1", all_succeeded(jobs) and first == len(jobs), longest_s(jobs))


def flaky(evidence: Evidence) -> Seen:
    """See deliveries that failed at first and went through later."""
    jobs = evidence.jobs("webhook_flaky")
    attempts = ", ".join(str(job.attempts) for job in jobs)
    retried = all(job.attempts > 1 for job in jobs)
    return Seen(f"{states(jobs)} at attempt {attempts}", all_succeeded(jobs) and retried, longest_s(jobs))


def broken(evidence: Evidence) -> Seen:
    """See a delivery given up, kept as a dead letter, and operators told once."""
    jobs = evidence.jobs("webhook_broken")
    dead = [job for job in jobs if job.state == "dead" and job.reason == "exhausted" and job.attempts == ATTEMPTS]
    letters = sum(evidence.count_rows(LETTERS, job.job_id) for job in jobs)
    alerts = sum(mail.to == ALERT_MAILBOX and "deliver" in mail.subject for mail in evidence.mails)
    attempts = max((job.attempts for job in jobs), default=0)
    return Seen(
        f"{states(jobs)} after {attempts} attempts, {letters} dead letter, {alerts} alert",
        len(dead) == len(jobs) == letters == alerts == 1,
        longest_s(jobs),
    )


def gone(evidence: Evidence) -> Seen:
    """See an endpoint that answered 410 switched off."""
    jobs = evidence.jobs("webhook_gone")
    return Seen(states(jobs), bool(jobs) and all(job.has_ended for job in jobs), longest_s(jobs))
