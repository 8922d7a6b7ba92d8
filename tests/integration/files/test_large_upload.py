"""Memory of an export of 256 MiB that goes to S3: one part at a time, whatever the size of the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories.s3 import S3Server

MEBIBYTE = 1024 * 1024
UPLOAD = """
import json, re, sys
import django
django.setup()
from django.core.files.storage import storages
from switchyard.jobs.results import open_result, save_file, save_path

def peak():
    # ru_maxrss would include the parent's, from before the exec.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

save_file("small.csv", b"x", "text/csv")
before = peak()
stored = save_path("large.csv", sys.argv[1], "text/csv")
written = peak()
with open_result(stored["file"]) as file:
    read = sum(len(part) for part in file.chunks())
print(json.dumps({**stored, "written": written - before, "read": peak() - before, "read_bytes": read}))
"""


@pytest.mark.parametrize("size_bytes", [64 * MEBIBYTE, pytest.param(256 * MEBIBYTE, marks=pytest.mark.long)])
def test_a_large_export_goes_to_s3_in_less_than_64_mb(tmp_path: Path, s3_server: S3Server, size_bytes: int) -> None:
    export = tmp_path / "large.csv"
    with export.open("wb") as file:
        file.truncate(size_bytes)
    address = s3_server.bucket()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "SWITCHYARD_STORAGE_URL": s3_server.address(address.bucket),
    }

    done = subprocess.run(
        [sys.executable, "-c", UPLOAD, str(export)], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )

    seen = json.loads(done.stdout.splitlines()[-1])
    print(f"{size_bytes // MEBIBYTE} MiB: {seen['written'] / 1e6:.1f} MB to write, {seen['read'] / 1e6:.1f} MB to read")
    assert (seen["size_bytes"], seen["read_bytes"]) == (size_bytes, size_bytes)
    assert 0 < seen["written"] < 64_000_000
    assert seen["read"] < 64_000_000
