"""Checks of the state folder's disk: results, stacks, metrics; on a small deployment also database and broker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from apps.platform.conf import switchyard_settings
from apps.platform.console.formatting import counted, size
from apps.platform.operations.findings.finding import Finding, FindingGroup, Severity
from apps.platform.workers.metrics.restoring import gaps_of

GROUP = FindingGroup("disk")
LOW_BYTES = 1_000_000_000
EMPTY_BYTES = 100_000_000


def look() -> Iterator[Finding]:
    """Check the free space, the permission to write, and the metrics that were removed."""
    yield from _gaps()
    folder = switchyard_settings().state_dir
    if not folder.is_dir():
        seen = "the state folder does not exist"
        yield GROUP.warning("no_folder", seen, "Nothing ran here before", f"mkdir -p {folder}")
        return
    if not os.access(folder, os.W_OK):
        seen, cause = (
            "the state folder is not writable",
            "Another user owns it, or it is mounted read-only",
        )
        yield GROUP.error("read_only", seen, cause, f"ls -ld {folder}; then chown it to the yard's user")
        return
    usage = shutil.disk_usage(folder)
    severity: Severity = "ok"
    if usage.free < EMPTY_BYTES:
        severity = "error"
    elif usage.free < LOW_BYTES:
        severity = "warning"
    seen = f"{size(usage.free)} of {size(usage.total)} free"
    if severity == "ok":
        yield GROUP.ok("free", seen)
    else:
        cause = "Results, logs or the server's append-only file grew"
        yield GROUP.finding(severity, "low", seen, cause, f"du -xh --max-depth=2 {folder} | sort -h | tail")


def _gaps() -> Iterator[Finding]:
    for folder in sorted(switchyard_settings().metrics_dir.glob("*/")):
        count = int(gaps_of(folder))
        if count:
            seen = f"the metrics of {folder.name} have {counted(count, 'gap')}: their folder was removed"
            cause = "A clean-up of temporary files, or of PROMETHEUS_MULTIPROC_DIR, removes it while the pool runs"
            yield GROUP.warning("metrics_gap", seen, cause, f"exclude {folder.parent} from the clean-up", folder.name)
