"""Memory of an export of 1 GB: rows from the database to a file, and from there to S3, a part of each at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.factories.s3 import S3Server

EXPORT = """
import json, re, sys
import django
django.setup()
from django.db import connection
from django.core.files.storage import default_storage
from apps.exports.services import export

def peak():
    # ru_maxrss would include the parent's, from before the exec.
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

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
long = [pytest.mark.long, pytest.mark.timeout(900)]


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
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "SWITCHYARD_STORAGE_URL": s3_server.address(s3_server.bucket().bucket),
        "TMPDIR": str(tmp_path),
    }

    def run(*words: str) -> Any:
        command = [sys.executable, *words]
        return subprocess.run(command, env=environment, cwd=settings.BASE_DIR, capture_output=True, text=True)

    assert run("manage.py", "migrate", "--verbosity=0").returncode == 0
    done = run("-c", EXPORT, str(rows), file_format)

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    print(f"{rows:,} rows as {file_format}: {seen['size_bytes'] / 1e6:.0f} MB, grown by {seen['grown'] / 1e6:.1f} MB")
    assert (seen["rows"], seen["kept"]) == (rows, seen["size_bytes"])
    assert seen["size_bytes"] >= at_least_bytes
    assert seen["grown"] < 64_000_000
    assert not list(tmp_path.glob("switchyard-export-*"))
