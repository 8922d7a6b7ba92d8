"""Expected outcomes of the sample work: one function each that judges the evidence, and the table of all."""

from __future__ import annotations

import http
from collections.abc import Callable
from dataclasses import dataclass

from demo.addresses import ALERT_MAILBOX
from demo.check.evidence import Evidence, Seen, all_succeeded, longest_s, states
from demo.sample.journal import SentJob
from demo.sample.orders import RESETS, WELCOMES

PER_MINUTE = 10
DELAY_S = 20
ATTEMPTS = 6
COUNTS = ("matched", "unmatched", "corrected")
IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
WORKBOOK = b"PK\x03\x04"
BOOKED = "select count(*) from shop_payment where external_id = ?"
DEAD_LETTERS = "select count(*) from switchyard_dead_letters_deadletter where message_id = ?"
DISABLED = "select count(*) from webhooks_endpoint where url = ? and not active"
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


@dataclass(frozen=True, slots=True)
class Expectation:
    """One row of the table.

    Args:
        look: Judges the evidence.
        passes: The outcome is transient: seen once is enough.
    """

    app: str
    what: str
    expected: str
    look: Callable[[Evidence], Seen]
    passes: bool = False


def resets(evidence: Evidence) -> Seen:
    """Expect one mail for each password reset."""
    jobs = evidence.jobs("password_reset")
    mails = _mails(evidence, jobs)
    as_expected = all_succeeded(jobs) and len(jobs) == mails == RESETS
    return Seen(f"{states(jobs)}, {mails} mails", as_expected, longest_s(jobs))


def welcomes(evidence: Evidence) -> Seen:
    """Expect ten welcome mails sent, and the rest held by the rate limit."""
    jobs = evidence.jobs("welcome")
    sent = [job for job in jobs if job.state == "succeeded"]
    held = [job for job in jobs if job.state == "scheduled" and job.reason == "rate_limit"]
    mails = _mails(evidence, jobs)
    as_expected = (len(sent), len(held), mails) == (PER_MINUTE, WELCOMES - PER_MINUTE, PER_MINUTE)
    return Seen(f"{mails} sent, {len(held)} held by the rate limit", as_expected, longest_s(sent))


def scheduled(evidence: Evidence) -> Seen:
    """Expect the delayed job done, not before its time."""
    jobs = evidence.jobs("later")
    if not all_succeeded(jobs):
        return Seen(states(jobs), as_expected=False)
    waited_s = jobs[0].seconds_between("enqueued_at", "started_at") or 0.0
    as_expected = waited_s >= DELAY_S and _mails(evidence, jobs) == 1
    return Seen(f"started after {waited_s:.1f} s, then sent", as_expected, longest_s(jobs))


def cancelled(evidence: Evidence) -> Seen:
    """Expect the cancelled job to have sent no mail."""
    jobs = evidence.jobs("cancelled")
    is_cancelled = [job.state for job in jobs] == ["cancelled"]
    return Seen(states(jobs), is_cancelled and _mails(evidence, jobs) == 0, longest_s(jobs))


def _mails(evidence: Evidence, jobs: list[SentJob]) -> int:
    """Count the mails of some jobs; a mail that was sent twice counts twice."""
    ids = tuple(job.job_id for job in jobs)
    return sum(1 for mail in evidence.mails if mail.message_id.startswith(ids))


def statements(evidence: Evidence) -> Seen:
    """Expect a PDF for each statement."""
    return _files(evidence, "statement", "PDF", lambda content: content.startswith(b"%PDF-"))


def thumbnail_by_url(evidence: Evidence) -> Seen:
    """Expect an image made from the fetched picture."""
    return _files(evidence, "thumbnail_url", "image", lambda content: content.startswith(IMAGES))


def thumbnail_of_upload(evidence: Evidence) -> Seen:
    """Expect an image made from the uploaded picture."""
    return _files(evidence, "thumbnail_upload", "image", lambda content: content.startswith(IMAGES))


def export_csv(evidence: Evidence) -> Seen:
    """Expect a heading and a line for each invoice."""
    least = evidence.count_rows("select count(*) from shop_invoice")
    return _files(evidence, "export_csv", "CSV", lambda content: len(content.splitlines()) > least)


def export_xlsx(evidence: Evidence) -> Seen:
    """Expect a workbook."""
    return _files(evidence, "export_xlsx", "XLSX", lambda content: content.startswith(WORKBOOK))


def private_url(evidence: Evidence) -> Seen:
    """Expect 422 for a URL on a private address."""
    status = evidence.answers.private_url
    return Seen(f"answered {status}" if status else "not asked yet", status == http.HTTPStatus.UNPROCESSABLE_ENTITY)


def _files(evidence: Evidence, kind: str, name: str, is_good: Callable[[bytes], bool]) -> Seen:
    jobs = evidence.jobs(kind)
    good = sum(1 for job in jobs if is_good(evidence.file_of(job)))
    return Seen(f"{states(jobs)}, {good} {name}", all_succeeded(jobs) and good == len(jobs), longest_s(jobs))


def reconciliation(evidence: Evidence) -> Seen:
    """Expect the three counts of a reconciled month."""
    jobs = evidence.jobs("reconciliation")
    if not all_succeeded(jobs):
        return Seen(states(jobs), as_expected=False)
    result = jobs[0].body["result"] or {}
    text = ", ".join(f"{result.get(name)} {name}" for name in COUNTS)
    return Seen(text, all(isinstance(result.get(name), int) for name in COUNTS), longest_s(jobs))


def payment(evidence: Evidence) -> Seen:
    """Expect a payment whose event was sent twice to be booked once."""
    answers = evidence.answers.payment
    booked = evidence.count_rows(BOOKED, evidence.answers.payment_id)
    text = ", ".join(str(answer) for answer in answers) or "not sent yet"
    as_expected = answers == [http.HTTPStatus.ACCEPTED] * 2 and booked == 1
    return Seen(f"{text}, booked {booked} times" if booked != 1 else f"{text}, booked once", as_expected)


def forged(evidence: Evidence) -> Seen:
    """Expect 401 for a forged event, and no booking."""
    status = evidence.answers.forged
    booked = evidence.count_rows(BOOKED, evidence.answers.forged_payment_id)
    text = f"{status}, booked {booked} times" if booked else f"{status}, booked never"
    return Seen(text if status else "not sent yet", status == http.HTTPStatus.UNAUTHORIZED and not booked)


def healthy(evidence: Evidence) -> Seen:
    """Expect each delivery once, at its first attempt, with a valid signature."""
    jobs = evidence.jobs("webhook_healthy")
    arrived = evidence.arrived("/healthy")
    signed = [entry for entry in arrived if entry["status"] == 200 and entry["signature_ok"]]
    as_expected = all_succeeded(jobs) and len({entry["id"] for entry in signed}) == len(arrived) == len(jobs)
    return Seen(f"{states(jobs)}, {len(signed)} signed requests", as_expected, longest_s(jobs))


def flaky(evidence: Evidence) -> Seen:
    """Expect deliveries that failed at first and succeeded on a retry."""
    jobs = evidence.jobs("webhook_flaky")
    attempts = " and ".join(str(job.attempts) for job in jobs)
    failed = sum(entry["status"] == 500 for entry in evidence.arrived("/flaky"))
    as_expected = all_succeeded(jobs) and all(job.attempts > 1 for job in jobs) and failed >= len(jobs)
    return Seen(f"{states(jobs)} at attempts {attempts}", as_expected, longest_s(jobs))


def broken(evidence: Evidence) -> Seen:
    """Expect one dead letter after six attempts, and one alert."""
    jobs = evidence.jobs("webhook_broken")
    dead = [job for job in jobs if job.state == "dead" and job.reason == "exhausted"]
    letters = sum(evidence.count_rows(DEAD_LETTERS, job.job_id) for job in jobs)
    arrived, alerts = len(evidence.arrived("/broken")), _alerts(evidence, "DeliveryFailed")
    return Seen(
        f"{states(jobs)}, {arrived} requests, {letters} letter, {alerts} alert",
        len(dead) == len(jobs) == letters == alerts == 1 and arrived == ATTEMPTS,
        longest_s(jobs),
    )


def gone(evidence: Evidence) -> Seen:
    """Expect the endpoint that answered 410 disabled after one request, and one alert."""
    jobs = evidence.jobs("webhook_gone")
    arrived, alerts = len(evidence.arrived("/gone")), _alerts(evidence, "PermanentFailure")
    disabled = evidence.count_rows(DISABLED, f"{evidence.receiver}/gone")
    is_dead = [(job.state, job.reason) for job in jobs] == [("dead", "permanent")]
    text = f"{'disabled' if disabled else 'enabled'}, {states(jobs)}, {arrived} request, {alerts} alert"
    return Seen(text, is_dead and arrived == alerts == disabled == 1, longest_s(jobs))


def _alerts(evidence: Evidence, failure: str) -> int:
    return sum(mail.to == ALERT_MAILBOX and failure in mail.subject for mail in evidence.mails)


def metrics(evidence: Evidence) -> Seen:
    """Expect every metric of ``METRICS`` on the page."""
    samples = {line.split("{")[0].split(" ")[0] for line in evidence.text_of("/metrics").splitlines()}
    missing = [name for name in METRICS if name not in samples]
    if missing:
        return Seen(f"missing {', '.join(missing)}", as_expected=False)
    return Seen(f"all {len(METRICS)} of them", as_expected=True)


EXPECTATIONS = (
    Expectation("mail", "5 password resets", "5 succeeded, a mail each", resets),
    Expectation("mail", "12 welcome mails", "10 sent, 2 held by the limit of 10/min", welcomes, passes=True),
    Expectation("mail", "newsletter in 20 s", "scheduled, then sent, not before", scheduled),
    Expectation("mail", "newsletter in 10 min", "cancelled, never sent", cancelled),
    Expectation("reports", "monthly statements", "all succeeded, a PDF each", statements),
    Expectation("images", "thumbnail by URL", "succeeded, an image", thumbnail_by_url),
    Expectation("images", "thumbnail of an upload", "succeeded, an image", thumbnail_of_upload),
    Expectation("images", "URL of a private address", "refused with 422", private_url),
    Expectation("exports", "invoices as CSV", "succeeded, a row for each", export_csv),
    Expectation("exports", "payments as XLSX", "succeeded, a workbook", export_xlsx),
    Expectation("billing", "reconciliation", "succeeded with its counts", reconciliation),
    Expectation("billing", "signed payment event, sent twice", "202, 202, booked once", payment),
    Expectation("billing", "payment event, wrong signature", "401, booked never", forged),
    Expectation("webhooks", "healthy endpoint", "each delivered at once, signed", healthy),
    Expectation("webhooks", "flaky endpoint", "retried, then delivered", flaky),
    Expectation("webhooks", "broken endpoint", "6 attempts, dead letter, one alert", broken),
    Expectation("webhooks", "endpoint that is gone", "disabled by its 410, one alert", gone),
    Expectation("operations", "/metrics", "depth, age, wait, outcomes, pools", metrics),
)
