"""What must become of each piece of sample work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from demo.check import billing_rows, file_rows, mail_rows, platform_rows, webhook_rows
from demo.check.evidence import Evidence
from demo.check.seen import Seen


@dataclass(frozen=True, slots=True)
class Expectation:
    """One row of the table.

    Args:
        look: Returns what is seen, and whether that is as expected.
        passes: It is as expected for a while only: seen once is enough.
    """

    app: str
    what: str
    expected: str
    look: Callable[[Evidence], Seen]
    passes: bool = False


EXPECTATIONS = (
    Expectation("mail", "5 password resets", "5 succeeded, a mail each", mail_rows.resets),
    Expectation("mail", "12 welcome mails", "10 sent, 2 held by the limit of 10/min", mail_rows.welcomes, passes=True),
    Expectation("mail", "newsletter in 20 s", "scheduled, then sent, not before", mail_rows.scheduled),
    Expectation("mail", "newsletter in 10 min", "cancelled, never sent", mail_rows.cancelled),
    Expectation("reports", "monthly statements", "all succeeded, a PDF each", file_rows.statements),
    Expectation("images", "thumbnail by URL", "succeeded, an image", file_rows.thumbnail_by_url),
    Expectation("images", "thumbnail of an upload", "succeeded, an image", file_rows.thumbnail_of_upload),
    Expectation("images", "URL of a private address", "refused with 422", file_rows.private_url),
    Expectation("exports", "invoices as CSV", "succeeded, a row for each", file_rows.export_csv),
    Expectation("exports", "payments as XLSX", "succeeded, a workbook", file_rows.export_xlsx),
    Expectation("billing", "reconciliation", "succeeded with its counts", billing_rows.reconciliation),
    Expectation("billing", "signed payment event, sent twice", "202, 202, booked once", billing_rows.payment),
    Expectation("billing", "payment event, wrong signature", "401, booked never", billing_rows.forged),
    Expectation("webhooks", "healthy endpoint", "each delivered at once, signed", webhook_rows.healthy),
    Expectation("webhooks", "flaky endpoint", "retried, then delivered", webhook_rows.flaky),
    Expectation("webhooks", "broken endpoint", "6 attempts, dead letter, one alert", webhook_rows.broken),
    Expectation("webhooks", "endpoint that is gone", "disabled by its 410, one alert", webhook_rows.gone),
    Expectation("operations", "/metrics", "depth, age, wait, outcomes, pools", platform_rows.metrics),
)
