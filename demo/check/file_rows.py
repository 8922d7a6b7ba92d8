"""What must become of statements, thumbnails and exports: real files that can be fetched."""

from __future__ import annotations

import http
from collections.abc import Callable

from demo.check.evidence import Evidence
from demo.check.seen import Seen, all_succeeded, longest_s, states

IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")
WORKBOOK = b"PK\x03\x04"


def statements(evidence: Evidence) -> Seen:
    """See a PDF for every statement."""
    return _files(evidence, "statement", "PDF", lambda content: content.startswith(b"%PDF-"))


def thumbnail_by_url(evidence: Evidence) -> Seen:
    """See the fetched picture's thumbnail."""
    return _files(evidence, "thumbnail_url", "image", lambda content: content.startswith(IMAGES))


def thumbnail_of_upload(evidence: Evidence) -> Seen:
    """See the uploaded picture's thumbnail."""
    return _files(evidence, "thumbnail_upload", "image", lambda content: content.startswith(IMAGES))


def export_csv(evidence: Evidence) -> Seen:
    """See a line for every invoice."""
    least = evidence.count_rows("select count(*) from shop_invoice")
    return _files(evidence, "export_csv", "CSV", lambda content: len(content.splitlines()) > least)


def export_xlsx(evidence: Evidence) -> Seen:
    """See a workbook."""
    return _files(evidence, "export_xlsx", "XLSX", lambda content: content.startswith(WORKBOOK))


def private_url(evidence: Evidence) -> Seen:
    """See the request for a private address refused."""
    status = evidence.answers.private_url
    return Seen(f"answered {status}" if status else "not asked yet", status == http.HTTPStatus.UNPROCESSABLE_ENTITY)


def _files(evidence: Evidence, kind: str, name: str, is_good: Callable[[bytes], bool]) -> Seen:
    jobs = evidence.jobs(kind)
    good = sum(1 for job in jobs if is_good(evidence.file_of(job)))
    return Seen(f"{states(jobs)}, {good} {name}", all_succeeded(jobs) and good == len(jobs), longest_s(jobs))
