"""What must become of webhook deliveries: seen at the API, at the receiver, in the database and in the mailbox."""

from __future__ import annotations

from demo.check.evidence import Evidence
from demo.check.seen import Seen, all_succeeded, longest_s, states
from demo.environment import ALERT_MAILBOX

ATTEMPTS = 6
LETTERS = "select count(*) from dead_letters_deadletter where message_id = ?"
DISABLED = "select count(*) from webhooks_endpoint where url = ? and not active"


def healthy(evidence: Evidence) -> Seen:
    """See every delivery taken at its first attempt, rightly signed, once."""
    jobs = evidence.jobs("webhook_healthy")
    arrived = evidence.arrived("/healthy")
    signed = [entry for entry in arrived if entry["status"] == 200 and entry["signature_ok"]]
    as_expected = all_succeeded(jobs) and len({entry["id"] for entry in signed}) == len(arrived) == len(jobs)
    return Seen(f"{states(jobs)}, {len(signed)} signed requests", as_expected, longest_s(jobs))


def flaky(evidence: Evidence) -> Seen:
    """See deliveries that failed at first and went through later."""
    jobs = evidence.jobs("webhook_flaky")
    attempts = " and ".join(str(job.attempts) for job in jobs)
    failed = sum(entry["status"] == 500 for entry in evidence.arrived("/flaky"))
    as_expected = all_succeeded(jobs) and all(job.attempts > 1 for job in jobs) and failed >= len(jobs)
    return Seen(f"{states(jobs)} at attempts {attempts}", as_expected, longest_s(jobs))


def broken(evidence: Evidence) -> Seen:
    """See a delivery given up, kept as a dead letter, and operators told once."""
    jobs = evidence.jobs("webhook_broken")
    dead = [job for job in jobs if job.state == "dead" and job.reason == "exhausted"]
    letters = sum(evidence.count_rows(LETTERS, job.job_id) for job in jobs)
    arrived, alerts = len(evidence.arrived("/broken")), _alerts(evidence, "DeliveryFailed")
    return Seen(
        f"{states(jobs)}, {arrived} requests, {letters} letter, {alerts} alert",
        len(dead) == len(jobs) == letters == alerts == 1 and arrived == ATTEMPTS,
        longest_s(jobs),
    )


def gone(evidence: Evidence) -> Seen:
    """See an endpoint that answered 410 switched off, without another attempt."""
    jobs = evidence.jobs("webhook_gone")
    arrived, alerts = len(evidence.arrived("/gone")), _alerts(evidence, "PermanentFailure")
    disabled = evidence.count_rows(DISABLED, f"{evidence.receiver}/gone")
    is_dead = [(job.state, job.reason) for job in jobs] == [("dead", "permanent")]
    text = f"{'disabled' if disabled else 'enabled'}, {states(jobs)}, {arrived} request, {alerts} alert"
    return Seen(text, is_dead and arrived == alerts == disabled == 1, longest_s(jobs))


def _alerts(evidence: Evidence, failure: str) -> int:
    return sum(mail.to == ALERT_MAILBOX and failure in mail.subject for mail in evidence.mails)
