"""Web on one host, pool on another, and only servers shared: the pool's host fails in the middle, no job is lost."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.databases import environment, manage
from tests.chaos.hosts import Host
from tests.chaos.ledger import Ledger
from tests.chaos.load import let_pass
from tests.chaos.postgres import PostgresUnderTest
from tests.environment import SERVER
from tests.factories.s3 import CREDENTIALS, S3Server
from tests.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("valkey"), pytest.mark.long, pytest.mark.timeout(500)]
SETTINGS = "project.settings"
PORT = 8000
# An export of these rows takes seconds: a fault meets it in the middle.
ROWS, EXPORTS = 60_000, 3
CUT_S = 25.0
# With those of development a web answers its own machine alone.
SECRETS = {name: f"{name} of the tests".ljust(50, ".") for name in ("DJANGO_SECRET_KEY", "SWITCHYARD_PAYMENT_SECRET")}
TOKEN = "from tests.factories.callers import Caller; print(Caller().headers['Authorization'])"
CUSTOMERS = """
INSERT INTO shop_customer (name, email, company, country, created_at)
SELECT 'Customer ' || n, 'customer.' || n || '@mail.example', 'Company ' || n, 'DE', now()
FROM generate_series(1, %s) AS n
"""


class Yard:
    """Hosts that share a broker, a database and a bucket, and the API of the first one."""

    def __init__(self, folder: Path, postgres: PostgresUnderTest, s3: S3Server) -> None:
        self._folder, self._postgres, self._bucket = folder, postgres, s3.bucket()
        self._token = ""
        self.hosts: list[Host] = []

    def prepare(self) -> None:
        """Make tables, rows and a token."""
        ledger = Ledger(self._folder / "ledger")
        own = environment(self._folder, ledger, SERVER.url, self._postgres.url) | {"DJANGO_SETTINGS_MODULE": SETTINGS}
        manage(own, "migrate", "--verbosity=0")
        self._token = manage(own, "shell", "--no-imports", "-c", TOKEN).strip()
        self._postgres.execute(CUSTOMERS.replace("%s", str(ROWS)))
        ledger.close()

    def add(self) -> Host:
        self.hosts.append(
            Host(
                self._folder, len(self.hosts) + 1, broker_port=SERVER.port, database_port=self._postgres.port,
                bucket=self._bucket, settings=SETTINGS,
            )
        )  # fmt: skip
        return self.hosts[-1]

    def ask(self, path: str, body: Any = None) -> bytes:
        """Return the answer of the web on the first host."""
        connection = http.client.HTTPConnection(self.hosts[0].address, PORT, timeout=30)
        headers = {"Host": "localhost", "Authorization": self._token, "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status < 300, (path, answer.status, content[:500])
        return content

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(json.loads(self.ask(f"/api/v1/jobs/{job_id}")))

    def is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("/healthz"))
        return False

    def log(self) -> str:
        """Return the end of what all hosts printed."""
        return "\n".join(host.log() for host in self.hosts)


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    for name, value in (CREDENTIALS | SECRETS).items():
        monkeypatch.setenv(name, value)
    with contextlib.ExitStack() as opened:
        s3 = opened.enter_context(contextlib.closing(S3Server(tmp_path).start()))
        yard = Yard(tmp_path, opened.enter_context(PostgresUnderTest()), s3)
        yard.prepare()
        yield yard
        for host in yard.hosts:
            host.close()


@pytest.mark.parametrize("fault", ["killed", "cut"])
def test_an_export_that_its_host_does_not_finish_is_downloaded_from_the_web(yard: Yard, fault: str) -> None:
    web, harmed = yard.add(), yard.add()
    web.start("runweb", "--host", "0.0.0.0", "--port", str(PORT))
    harmed.start_pool("slow")
    wait_for(yard.is_up, 90, what="the web")
    asked = {"dataset": "customers", "format": "csv"}
    sent = [json.loads(yard.ask("/api/v1/exports", asked))["job_id"] for _ in range(EXPORTS)]

    def in_the_middle() -> list[str]:
        jobs = map(yard.job, sent)
        return [job["id"] for job in jobs if job["state"] == "running" and (job["progress"] or {}).get("done")]

    ran = wait_for(in_the_middle, what="an export runs")
    harmed_s = time.monotonic()
    if fault == "killed":
        harmed.kill()
        yard.add().start_pool("slow")
    else:  # back again, it makes them anew: an export that lost its database is a retry
        harmed.cut()
        let_pass(CUT_S)
        harmed.heal()
        harmed.start_pool("retries")

    def ended() -> list[dict[str, Any]]:
        jobs = [yard.job(job_id) for job_id in sent]
        return jobs if all(job["finished_at"] for job in jobs) else []

    jobs = wait_for(ended, 180, what="the exports end")
    print(f"{fault}: {len(ran)} of {len(sent)} ran there, all ended {time.monotonic() - harmed_s:.1f} s later")
    assert [job["state"] for job in jobs] == ["succeeded"] * EXPORTS, yard.log()
    files = [yard.ask(f"/api/v1/jobs/{job_id}/result") for job_id in sent]
    assert [hashlib.sha256(file).hexdigest() for file in files] == [job["result"]["sha256"] for job in jobs]
    assert [file.count(b"\r\n") for file in files] == [ROWS + 1] * EXPORTS
    for host in yard.hosts:
        assert not list(host.folder.rglob("*.csv"))
