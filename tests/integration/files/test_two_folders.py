"""Web and worker as processes in two folders that share broker, database and bucket, and nothing on the disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from tests.factories.callers import Caller
from tests.factories.s3 import S3Server
from tests.factories.shop import make_customer, make_invoice
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long, pytest.mark.sqlite]


@contextlib.contextmanager
def process(folder: Path, storage: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a folder of its own: working directory, state, temporary files, home."""
    (folder / "tmp").mkdir(parents=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"},
        "SWITCHYARD_STATE_DIR": str(folder / "state"),
        "SWITCHYARD_STORAGE_URL": storage,
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(folder),
    }
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, str(settings.BASE_DIR / "manage.py"), *words],
            cwd=folder, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def test_a_file_of_a_worker_in_one_folder_is_downloaded_from_a_web_in_another(
    tmp_path: Path, s3_server: S3Server, facilities: Any
) -> None:
    customer = make_customer()
    make_invoice(customer)
    headers = Caller().headers | {"Content-Type": "application/json"}
    storage = s3_server.address(s3_server.bucket().bucket)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def ask(url: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
            return bytes(answer.read())

    def is_up() -> bool:
        with contextlib.suppress(OSError):
            return bool(ask(f"http://127.0.0.1:{port}/healthz"))
        return False

    with (
        process(tmp_path / "worker", storage, "runpool", "slow", "--metrics-port", "0") as pool,
        process(tmp_path / "web", storage, "runweb", "--port", str(port)) as web,
    ):
        wait_for(is_up, 60)
        root = f"http://127.0.0.1:{port}/api/v1"
        asked = [("exports", {"dataset": "invoices", "format": "csv"})]
        asked += [("reports", {"customer_id": customer.pk, "month": "2026-10"})]
        sent = [json.loads(ask(f"{root}/{path}", body))["job_id"] for path, body in asked]

        def ended() -> list[dict[str, Any]]:
            jobs = [json.loads(ask(f"{root}/jobs/{job_id}")) for job_id in sent]
            return jobs if all(job["finished_at"] for job in jobs) else []

        jobs = wait_for(ended, 90)
        files = [ask(job["result_url"]) for job in jobs]
        assert (pool.poll(), web.poll()) == (None, None)

    assert [hashlib.sha256(file).hexdigest() for file in files] == [job["result"]["sha256"] for job in jobs]
    assert files[1].startswith(b"%PDF-")
    left = [
        path.relative_to(tmp_path)
        for path in tmp_path.rglob("*")
        if path.suffix in (".csv", ".pdf") or path.name == "media"
    ]
    assert left == []
