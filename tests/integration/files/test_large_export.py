"""Memory of large exports: rows from the database to a file, from there to S3 and back, a part of each at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tests.factories.s3 import S3Server

START = """
import json, re, sys
import django
django.setup()

def peak():
    # ru_maxrss would include the parent's, from before the exec.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
"""
EXPORT = """
from django.db import connection
from django.core.files.storage import default_storage
from apps.exports.services import export

rows, file_format = int(sys.argv[1]), sys.argv[2]
export("customers", file_format, job_id=None)
with connection.cursor() as cursor:
    cursor.execute('''
        INSERT INTO shop_customer (name, email, company, country, created_at)
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %s)
        SELECT printf('Customer %%111d', n), printf('customer.%%0220d@mail.example', n), printf('Company %%0112d', n),
               'DE', '2026-10-15 12:00:00' FROM numbers
    ''', [rows])
before = peak()
stored = export("customers", file_format, job_id=None)
print(json.dumps({**stored, "grown": peak() - before, "kept": default_storage.size(stored["file"])}))
"""
ROW_BYTES = 520
UPLOAD = """
from switchyard.jobs.results import open_result, save_file, save_path

save_file("small.csv", b"x", "text/csv")
before = peak()
stored = save_path("large.csv", sys.argv[1], "text/csv")
written = peak()
with open_result(stored["file"]) as file:
    read = sum(len(part) for part in file.chunks())
print(json.dumps({**stored, "written": written - before, "read": peak() - before, "read_bytes": read}))
"""
MEBIBYTE = 1024 * 1024
long = [pytest.mark.long, pytest.mark.timeout(900)]


def run(s3_server: S3Server, folder: Path, *words: str) -> str:
    """Run Python with a bucket and a database in a folder, and return the last line that it printed."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "SWITCHYARD_STORAGE_URL": s3_server.address(s3_server.bucket().bucket),
        "TMPDIR": str(folder),
    }
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=settings.BASE_DIR, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("\n")[0].rpartition("\n")[2]


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("file_format", "rows", "at_least_bytes"),
    [
        ("csv", 50_000, 50_000 * ROW_BYTES),
        pytest.param("csv", 2_000_000, 1_000_000_000, marks=long),
        pytest.param("xlsx", 500_000, 15_000_000, marks=long),  # compressed, from 260 MB
    ],
)
def test_an_export_of_any_size_grows_by_less_than_64_mb(
    tmp_path: Path, s3_server: S3Server, file_format: str, rows: int, at_least_bytes: int
) -> None:
    run(s3_server, tmp_path, "manage.py", "migrate", "--verbosity=0")
    seen = json.loads(run(s3_server, tmp_path, "-c", START + EXPORT, str(rows), file_format))

    print(f"{rows:,} rows as {file_format}: {seen['size_bytes'] / 1e6:.0f} MB, grown by {seen['grown'] / 1e6:.1f} MB")
    assert (seen["rows"], seen["kept"]) == (rows, seen["size_bytes"])
    assert seen["size_bytes"] >= at_least_bytes
    assert seen["grown"] < 64_000_000
    assert not list(tmp_path.glob("switchyard-export-*"))


@pytest.mark.parametrize("size_bytes", [64 * MEBIBYTE, pytest.param(256 * MEBIBYTE, marks=pytest.mark.long)])
def test_a_large_file_goes_to_s3_and_back_in_less_than_64_mb(
    tmp_path: Path, s3_server: S3Server, size_bytes: int
) -> None:
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(size_bytes)

    seen = json.loads(run(s3_server, tmp_path, "-c", START + UPLOAD, str(tmp_path / "large.csv")))

    print(f"{size_bytes // MEBIBYTE} MiB: {seen['written'] / 1e6:.1f} MB to write, {seen['read'] / 1e6:.1f} MB to read")
    assert (seen["size_bytes"], seen["read_bytes"]) == (size_bytes, size_bytes)
    assert 0 < seen["written"] < 64_000_000
    assert seen["read"] < 64_000_000
