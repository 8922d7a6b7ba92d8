"""Retention of statements: rows with their files."""

from __future__ import annotations

from apps.reports.models import Report
from apps.retention.file_rows import kind_of_file_rows

KIND = kind_of_file_rows(
    Report,
    name="reports",
    title="Reports",
    content="Statements of customers with their files, by the time at which they were last written",
    age="generated_at",
)
