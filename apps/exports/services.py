"""Export of a dataset to a file in the storage."""

import contextlib
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from django.utils import timezone

from apps.exports.datasets import TABLES, Table
from apps.exports.models import Export, Format
from apps.exports.writers import CONTENT_TYPES, open_writer
from apps.shop.queries import stream
from switchyard.jobs.results import save_path
from switchyard.jobs.services import report_progress
from switchyard.middleware.errors import PermanentFailure

PROGRESS_ROWS = 500
FOLDERS = "switchyard-export-"
# Longer than any export may take: a folder of this age belongs to a process that was killed.
LEFT_BEHIND_S = 86_400


def export(dataset: str, file_format: str, *, job_id: str | None) -> dict[str, Any]:
    """Write a dataset to a file, row by row, and return what was stored, with ``rows``. Safe to repeat.

    Args:
        job_id: The job that exports; ``None`` (no worker) makes every call an export of its own.

    Raises:
        PermanentFailure: the dataset or format is unknown.
        Cancelled: the job was cancelled; nothing is left behind.
        OSError: the disk is full, or gone; nothing is left behind.
    """
    if dataset not in TABLES or file_format not in Format.values:
        known = f"{', '.join(TABLES)} as {', '.join(Format.values)}"
        raise PermanentFailure(f"export: {dataset!r} as {file_format!r} is not known; export {known}")
    job_id = job_id or str(uuid.uuid4())
    done = Export.objects.filter(job_id=job_id).first()
    if done is not None and done.is_stored:
        return done.described | {"rows": done.row_count}
    table = TABLES[dataset]
    filename = f"{dataset}-{timezone.now():%Y-%m-%d}.{file_format}"
    _remove_left_behind()
    with tempfile.TemporaryDirectory(prefix=FOLDERS) as folder:
        path = Path(folder) / filename
        row_count = _write(path, table, file_format)
        stored = save_path(filename, path, CONTENT_TYPES[file_format])
    values = {**stored, "dataset": dataset, "format": file_format, "row_count": row_count, "created_at": timezone.now()}
    written, _ = Export.objects.update_or_create(job_id=job_id, defaults=values)
    return written.described | {"rows": row_count}


def _remove_left_behind() -> None:
    """Remove folders of exports whose process was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDERS}*"):
        with contextlib.suppress(OSError):  # another export removes it, or another user's process made it
            if time.time() - folder.stat().st_mtime > LEFT_BEHIND_S:
                shutil.rmtree(folder)


def _write(path: Path, table: Table, file_format: str) -> int:
    total = table.rows.count()
    row_count = 0
    report_progress(0, total, f"0 of {total:,} rows")
    with open_writer(file_format, path, table) as write:
        for row in stream(table.rows):
            write([column.value(row) for column in table.columns])
            row_count += 1
            if row_count % PROGRESS_ROWS == 0:
                # Rows may have been added since the count.
                report_progress(row_count, max(total, row_count), f"{row_count:,} of {max(total, row_count):,} rows")
    report_progress(row_count, row_count, f"{row_count:,} rows written, storing the file")
    return row_count
