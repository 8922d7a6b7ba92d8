"""Retention of exports: rows with their files."""

from __future__ import annotations

from apps.platform.retention.file_rows import kind_of_file_rows
from apps.product.exports.models import Export

KIND = kind_of_file_rows(Export, name="exports", title="Exports", content="Exported files", age="created_at")
