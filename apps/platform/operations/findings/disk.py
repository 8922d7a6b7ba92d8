"""Checks of the state folder's disk, and of the storage of job files where that is off the disk."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

from django.core.files.storage import storages

from apps.platform.conf import switchyard_settings
from apps.platform.console.formatting import counted, size
from apps.platform.files.bucket import BucketStorage
from apps.platform.files.errors import ExtraMissing, StorageUnavailable
from apps.platform.operations.findings.finding import Finding, FindingGroup, Severity
from apps.platform.workers.metrics.restoring import gaps_of

GROUP = FindingGroup("disk")
STORAGE = FindingGroup("storage")
LOW_BYTES = 1_000_000_000
EMPTY_BYTES = 100_000_000
# Codes of the clients' errors for a bucket, of S3 and of Google.
MISSING = ("404", "NoSuchBucket", "NotFound")
REFUSED = ("403", "AccessDenied", "Forbidden")


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


def look_at_storage() -> Iterator[Finding]:
    """Reach the bucket of the default storage. A folder is the disk's check."""
    storage = storages["default"]
    if not isinstance(storage, BucketStorage):
        return
    began_s = time.monotonic()
    quick = storage.quick()
    try:
        quick.reach()
    except ExtraMissing as error:
        yield STORAGE.error("no_client", str(error), "Its package is not installed", "install the package")
    except StorageUnavailable as error:
        yield _away(storage.address.shown, error.cause)
    else:
        took_ms = (time.monotonic() - began_s) * 1000
        yield STORAGE.ok("reached", f"{storage.address.shown} answered in {took_ms:.0f} ms")
    finally:
        quick.close()


def _away(shown: str, code: str) -> Finding:
    """Return the finding for a bucket that is missing, refuses this user, or does not answer."""
    if code in MISSING:
        seen = f"{shown}: the server has no such bucket ({code})"
        cause = "It was not made, or the address has another name"
        remedy = "make the bucket, or correct SWITCHYARD_STORAGE_URL"
    elif code in REFUSED:
        seen = f"{shown}: the server refuses this user ({code})"
        cause = "The credentials are wrong, or the user may not list the bucket"
        remedy = "check the user's rights, and the credentials in the environment of web and pools"
    else:
        seen = f"{shown} was not reached: {code}"
        cause = "The server is down, or the address or the credentials are wrong"
        remedy = "check that it runs, SWITCHYARD_STORAGE_URL, and the credentials in the environment of web and pools"
    return STORAGE.error("away", seen, f"{cause}; jobs that store files fail and are retried", remedy)


def _gaps() -> Iterator[Finding]:
    for folder in sorted(switchyard_settings().metrics_dir.glob("*/")):
        count = int(gaps_of(folder))
        if count:
            seen = f"the metrics of {folder.name} have {counted(count, 'gap')}: their folder was removed"
            cause = "A clean-up of temporary files, or of PROMETHEUS_MULTIPROC_DIR, removes it while the pool runs"
            yield GROUP.warning("metrics_gap", seen, cause, f"exclude {folder.parent} from the clean-up", folder.name)
