"""Customer statements: make, typeset as PDF with typst, and store."""

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from django.utils import timezone

from apps.reports import statement
from apps.reports.models import Report
from apps.shop import months
from apps.shop import queries as shop
from switchyard.jobs.results import save_file
from switchyard.jobs.services import report_progress
from switchyard.middleware.errors import PermanentFailure

STEPS = 4
CONTENT_TYPE = "application/pdf"
FOLDER = Path(__file__).parent / "typst"
TEMPLATE = FOLDER / "statement.typ"
FONTS = FOLDER / "fonts"


def generate(customer_id: int, month: str, *, since: datetime | None = None) -> dict[str, Any]:
    """Make the statement of a customer's month, unless the stored one has the same content. Safe to repeat.

    Args:
        since: Time at which the job was sent: a statement that is newer counts as written by this job.

    Returns:
        The stored file with ``checksum`` of the content, and ``unchanged``: whether nothing was written since then.

    Raises:
        PermanentFailure: there is no such customer or month.
        Cancelled: the job was cancelled.
    """
    try:
        months.bounds(month)
    except ValueError as wrong:
        raise PermanentFailure(str(wrong)) from None
    customer = shop.customer_or_none(customer_id)
    if customer is None:
        raise PermanentFailure(f"customer {customer_id}: does not exist; use the id of a customer of the shop")
    report_progress(0, STEPS, "Reading invoices and payments")
    content = statement.build(customer, month)
    report_progress(1, STEPS, "Comparing with the last statement")
    checksum = checksum_of(content)
    known = Report.objects.filter(customer=customer, month=month).first()
    if known is not None and known.checksum == checksum and known.is_stored:
        report_progress(STEPS, STEPS, "Nothing has changed")
        return _result(known, unchanged=since is None or known.generated_at < since)
    report_progress(2, STEPS, "Setting the pages")
    document = typeset(content)
    report_progress(3, STEPS, "Storing the file")
    stored = save_file(f"statement-{month}-customer-{customer_id}.pdf", document, CONTENT_TYPE)
    values = {**stored, "checksum": checksum, "generated_at": timezone.now()}
    report, _ = Report.objects.update_or_create(customer=customer, month=month, defaults=values)
    report_progress(STEPS, STEPS, "Done")
    return _result(report, unchanged=False)


def _result(report: Report, *, unchanged: bool) -> dict[str, Any]:
    return report.described | {"checksum": report.checksum, "unchanged": unchanged}


def typeset(content: dict[str, Any]) -> bytes:
    """Return a statement as PDF. Equal data and design give equal bytes."""
    import typst  # imported here: 7 MB that only a process that makes reports needs

    # The data is an input of the document, never part of its source, so it is never evaluated. System fonts
    # stay in, after ours, for names in scripts that Inter lacks.
    data = {"data": _encode(content).decode()}
    pdf: bytes = typst.compile(TEMPLATE, format="pdf", root=FOLDER, font_paths=[FONTS], sys_inputs=data, timestamp=0)
    return pdf


def checksum_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(hashlib.sha256(TEMPLATE.read_bytes()).digest() + _encode(content)).hexdigest()


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
