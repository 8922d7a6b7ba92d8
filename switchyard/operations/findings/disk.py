"""Checks of the state folder's disk, and of the stores of job files and results where those are off the disk."""

import os
import shutil
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.conf import settings
from django.core.files.storage import storages
from django.utils.module_loading import import_string

from switchyard.conf import switchyard_settings
from switchyard.console.formatting import counted, size
from switchyard.files.addresses import StorageUnavailable
from switchyard.files.bucket import BucketStorage
from switchyard.operations.findings.finding import Finding, FindingGroup, Severity
from switchyard.workers.metrics import gaps_of

GROUP = FindingGroup("disk")
STORAGE = FindingGroup("storage")
LOW_BYTES, EMPTY_BYTES = 1_000_000_000, 100_000_000
# A few files of a process; a folder in memory is small.
METRICS_BYTES = 1_000_000
# Codes of the clients' errors for a bucket, of S3 and of Google -> the fact, its cause, and the step.
ANSWERS = (
    (("404", "NoSuchBucket", "NotFound"), "{shown}: the server has no such bucket ({code})",
     "It was not made, or the address has another name", "make the bucket, or correct {variable}"),
    (("403", "AccessDenied", "Forbidden"), "{shown}: the server refuses this user ({code})",
     "The credentials are wrong, or the user may not list the bucket",
     "check the user's rights, and the credentials in the environment of web and pools"),
    (("NoCredentialsError",), "{shown} was not reached: this process has no credentials ({code})",
     "Its environment has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and its machine has no role",
     "set both in the environment of web and pools, then restart those"),
)  # fmt: skip
# Any other code of S3 says which of these it is: ExpiredToken, RequestTimeTooSkewed, PermanentRedirect and others.
AWAY = (
    "{shown} was not reached, or refuses: {code}",
    "The server is down, or the address, its region, this machine's clock or the credentials are wrong",
    "check that it runs, {variable}, and the credentials in the environment of web and pools",
)


class _Store(NamedTuple):
    """Words for one of the two stores."""

    variable: str
    severity: Severity
    while_away: str


FILES = _Store("SWITCHYARD_STORAGE_URL", "error", "jobs that store files fail and are retried")
RESULTS = _Store("SWITCHYARD_RESULTS_URL", "warning", "jobs go on, and their records keep results meanwhile")


def look() -> Iterator[Finding]:
    """Check the free space, the permission to write, and the metrics that were removed or have no room."""
    yield from _gaps()
    metrics = switchyard_settings().metrics_dir
    if metrics.is_dir() and (free := shutil.disk_usage(metrics).free) < METRICS_BYTES:
        seen, cause = f"the metrics folder has {size(free)} free", "Its disk is full: counts end with a process"
        yield GROUP.warning("low", seen, cause, f"df {metrics}; make room there", "metrics")
    folder = switchyard_settings().state_dir
    if not folder.is_dir():
        seen = "the state folder does not exist"
        yield GROUP.warning("folder", seen, "Nothing ran here before", f"mkdir -p {folder}")
        return
    if not os.access(folder, os.W_OK):
        seen, cause = "the state folder is not writable", "Another user owns it, or it is mounted read-only"
        yield GROUP.error("folder", seen, cause, f"ls -ld {folder}; then chown it to the yard's user")
        return
    usage = shutil.disk_usage(folder)
    seen = f"{size(usage.free)} of {size(usage.total)} free"
    empty = usage.free < EMPTY_BYTES
    if empty or usage.free < min(LOW_BYTES, usage.total // 2):  # a container's folder in memory is small, and empty
        step = f"du -xh --max-depth=2 {folder} | sort -h | tail"
        cause = "Results, logs or the server's append-only file grew"
        yield GROUP.finding("error" if empty else "warning", "low", seen, cause, step)
    else:
        yield GROUP.ok(seen)


def look_at_storage() -> Iterator[Finding]:
    """Reach the bucket of the default storage. A folder is the disk's check."""
    if isinstance(storages["default"], BucketStorage):
        yield from _reach(settings.STORAGES["default"], FILES)


def look_at_results() -> Iterator[Finding]:
    """Reach the bucket of results where it is another one, or import their class."""
    results, files = switchyard_settings().results, settings.STORAGES["default"]
    if results.bucket is not None and _bucket_of(results.bucket.entry) != _bucket_of(files):
        yield from _reach(results.bucket.entry, RESULTS)
    if results.path:
        yield from _look_at_class(results.path)


def _bucket_of(entry: dict[str, Any]) -> dict[str, Any]:
    """Return what a bucket is reached by; links are those of files alone."""
    return {name: value for name, value in entry.get("OPTIONS", {}).items() if name != "querystring_expire"}


def _reach(entry: dict[str, Any], store: _Store) -> Iterator[Finding]:
    began_s = time.monotonic()
    storage: Any = storages.create_storage(entry)  # its own: this process may fork, and children share no connections
    try:
        # Of a folder that is not there: one request, and the answer to a list has the error's code in its body.
        storage.listdir("switchyard-doctor")
    except StorageUnavailable as error:
        yield _away(storage.shown, error.cause, store)
    else:
        took_ms = (time.monotonic() - began_s) * 1000
        yield STORAGE.ok(f"{storage.shown} answered in {took_ms:.0f} ms")


def _away(shown: str, code: str, store: _Store) -> Finding:
    """Return the finding for a bucket that is missing, refuses this user, or does not answer."""
    answers = (words for codes, *words in ANSWERS if code in codes)
    seen, cause, remedy = (each.format(shown=shown, code=code, variable=store.variable) for each in next(answers, AWAY))
    return STORAGE.finding(store.severity, "away", seen, f"{cause}; {store.while_away}", remedy)


def _look_at_class(path: str) -> Iterator[Finding]:
    """Import the class of a project's own store of results, which a process makes when it has the first result."""
    try:
        store = import_string(path)
    except Exception as error:  # noqa: BLE001  the module is the project's
        why = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        seen = f"the store of results {path} cannot be imported: {why}"
        cause = "The name in SWITCHYARD_RESULTS_URL, or its module,"
    else:
        missing = [name for name in ("put", "get") if not callable(getattr(store, name, None))]
        if not missing:
            return
        seen, cause = f"the store of results {path} has no {' and no '.join(missing)}", "The class, or its name"
    step = "correct SWITCHYARD_RESULTS_URL, or write that class: docs/reference/stores.md"
    yield STORAGE.warning("no_class", seen, f"{cause} is wrong; {RESULTS.while_away}", step)


def _gaps() -> Iterator[Finding]:
    for folder in sorted(switchyard_settings().metrics_dir.glob("*/")):
        if count := int(gaps_of(folder)):
            seen = f"the metrics of {folder.name} have {counted(count, 'gap')}: their folder was removed"
            cause = "A clean-up of temporary files, or of PROMETHEUS_MULTIPROC_DIR, removes it while the pool runs"
            yield GROUP.warning("metrics_gap", seen, cause, f"exclude {folder.parent} from the clean-up", folder.name)
