"""Retention of exports: rows with their files."""

from __future__ import annotations

from apps.exports.models import Export
from apps.retention.file_rows import kind_of_file_rows

KIND = kind_of_file_rows(Export, name="exports", title="Exports", content="Exported files", age="created_at")
