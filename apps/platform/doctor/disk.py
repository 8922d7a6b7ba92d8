"""The disk of the state folder: results, stacks, metrics, and on a small deployment database and broker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from apps.platform.conf import switchyard_settings
from apps.platform.console.formatting import size
from apps.platform.doctor.finding import Finding, Severity

GROUP = "disk"
LOW_BYTES = 1_000_000_000
EMPTY_BYTES = 100_000_000


def look() -> Iterator[Finding]:
    """Ask how much room is left, and whether this user may write."""
    folder = switchyard_settings().state_dir
    if not folder.is_dir():
        seen = "the state folder is not there yet"
        yield Finding(GROUP, "no_folder", "warning", seen, "Nothing ran here before", f"mkdir -p {folder}")
        return
    if not os.access(folder, os.W_OK):
        seen, cause = (
            "the state folder cannot be written to",
            "It belongs to another user, or is mounted to be read only",
        )
        yield Finding(GROUP, "read_only", "error", seen, cause, f"ls -ld {folder}; then chown it to the yard's user")
        return
    usage = shutil.disk_usage(folder)
    severity: Severity = "ok"
    if usage.free < EMPTY_BYTES:
        severity = "error"
    elif usage.free < LOW_BYTES:
        severity = "warning"
    seen = f"{size(usage.free)} of {size(usage.total)} free"
    if severity == "ok":
        yield Finding(GROUP, "free", "ok", seen)
    else:
        cause = "Results, logs or the server's append-only file grew"
        yield Finding(GROUP, "low", severity, seen, cause, f"du -xh --max-depth=2 {folder} | sort -h | tail")
