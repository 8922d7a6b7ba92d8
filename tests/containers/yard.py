"""The containers of ``ops/compose.yaml``: their commands, limits and settings, with the servers of this machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from switchyard.embedded.server import free_port
from tests.containers.engine import ROOT, Engine
from tests.tls import GuardedServer
from tests.waiting import wait_for

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "ops/compose.yaml").read_text())["services"]
POOLS = ("pool-urgent", "pool-default", "pool-images", "pool-slow", "pool-billing")
SECRETS = ("DJANGO_SECRET_KEY", "SWITCHYARD_PAYMENT_SECRET", "SWITCHYARD_METRICS_TOKEN")
TOKEN = """
from django.contrib.auth.models import User
from switchyard.api.tokens import create_token
ada, _ = User.objects.get_or_create(username="ada", is_staff=True, is_superuser=True)
print(create_token(owner=ada, scopes=["submit", "read", "operate"], name="test")[1])
"""


class ContainerYard:
    """Web, pools, scheduler and history writer, each in the container that compose describes.

    Ports differ from compose's: without networks of their own the containers share this machine's.

    Args:
        broker: With a user for each role.
        authority: File of the authority that signed its certificate.
    """

    def __init__(self, engine: Engine, broker: GuardedServer, authority: Path, database_url: str) -> None:
        self.engine = engine
        self._folder = Path(tempfile.mkdtemp(prefix="switchyard-secrets-"))
        self.ports = {name: free_port() for name in ("web", *POOLS)}
        self.environment = {
            "DJANGO_DEBUG": "0", "DJANGO_ALLOWED_HOSTS": "yard.example.com",
            "SWITCHYARD_PUBLIC_URL": "https://yard.example.com", "SWITCHYARD_SMTP_URL": "smtp://127.0.0.1:1",
            "SWITCHYARD_STORAGE_URL": "file:///srv/media", "SWITCHYARD_STATE_DIR": "/tmp/switchyard",
            "SWITCHYARD_LOG_FORMAT": "json",
        }  # fmt: skip
        values = {name: f"{name} of the tests".ljust(60, ".") for name in SECRETS}
        for name, value in (values | {"DATABASE_URL": database_url}).items():
            self.environment[f"{name}_FILE"] = self._secret(name, value)
        query = f"?ssl_ca_certs={self._secret('ca.pem', authority.read_text())}"
        self._brokers = {
            role: self._secret(f"broker-{role}", broker.url(f"switchyard-{role}", query))
            for role in ("worker", "scheduler", "room")
        }
        self._folder.chmod(0o755)
        self.token = ""

    def _secret(self, name: str, value: str) -> str:
        """Write the file of a secret, and return its path in containers."""
        file = self._folder / name
        file.write_text(value)
        file.chmod(0o444)
        return f"/run/secrets/switchyard/{name}"

    def _given(self, service: str, **more: str) -> list[str]:
        """Return the options that give a service its settings: each logs in to the broker with the user of its role."""
        roles = {"scheduler": "scheduler", "history": "scheduler"}
        role = "worker" if service.startswith("pool-") else roles.get(service, "room")
        given = self.environment | {"SWITCHYARD_BROKER_URL_FILE": self._brokers[role]} | more
        return [part for key, value in given.items() for part in ("--env", f"{key}={value}")]

    def start(self, service: str, release: str = "one", *, name: str = "", memory: str = "", **more: str) -> None:
        """Start the container of a service, with another limit of its memory if one is given."""
        found = SERVICES[service]
        command = [self._port_of(service, part) for part in found["command"]]
        limits = found["deploy"]["resources"]["limits"]
        options = [
            *("--memory", memory or limits["memory"].lower(), "--pids-limit", str(limits["pids"])),
            *(part for tmpfs in found["tmpfs"] for part in ("--tmpfs", tmpfs.replace(":", ":mode=1777,"))),
            *self._given(service, **more),
            *("-v", f"{self._folder}:/run/secrets/switchyard:ro"),
            *("-v", "media:/srv/media", "--stop-timeout", found.get("stop_grace_period", "10s").removesuffix("s")),
        ]
        self.engine.run(name or service, release, options, command)

    def _port_of(self, service: str, part: str) -> str:
        return str(self.ports[service]) if part in ("8000", "9191") else part

    def manage(self, *command: str, release: str = "one") -> str:
        """Run a command of ``manage.py`` in a container, to its end."""
        mounted = ["-v", f"{self._folder}:/run/secrets/switchyard:ro", "--tmpfs", "/tmp:mode=1777"]
        options = ["--rm", *mounted, *self._given("command")]
        return self.engine.run("command", release, options, ["python", "manage.py", *command], wait=True)

    def prepare(self) -> None:
        """Migrate, make sample rows and a token."""
        self.manage("migrate", "--noinput")
        self.manage("seed")
        self.token = self.manage("shell", "--verbosity=0", "-c", TOKEN).split()[-1]

    def request(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> tuple[int, Any]:
        """Ask the web, as a TLS proxy on this machine does; return status and content."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["web"], timeout=30)
        headers = {"Host": "yard.example.com", "X-Forwarded-Proto": "https", "Authorization": f"Bearer {self.token}"}
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with contextlib.closing(connection):
            connection.request(method, path, content, headers | ({"Content-Type": kind} if body is not None else {}))
            answer = connection.getresponse()
            text = answer.read()
        return answer.status, json.loads(text) if answer.headers.get_content_type().endswith("json") else text

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.request("GET", "/readyz")[0] == 200
        return False

    def is_up(self, pool: str) -> bool:
        """Return whether a pool's ``/health`` is green."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[pool], timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        return False

    def up(self, *pools: str) -> float:
        """Start web, scheduler, history and pools; return the seconds until all are green."""
        began_s = time.monotonic()
        for service in ("web", "scheduler", "history", *pools):
            self.start(service)
        wait_for(self.is_ready, 120, what="a green /readyz")
        for pool in pools:
            wait_for(lambda name=pool: self.is_up(name), 120, what=f"{pool} up: {self.engine.logs(pool)[-500:]}")
        return time.monotonic() - began_s

    def send(self, path: str, body: Any, *, kind: str = "application/json") -> str:
        """Submit work, and return the job's id."""
        status, answer = self.request("POST", path, body, kind=kind)
        assert status == 202, (path, status, answer)
        return str(answer["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.request("GET", f"/api/v1/jobs/{job_id}")[1])

    def stop(self, name: str) -> int:
        """Stop a container as compose does, and return its exit code."""
        self.engine.podman("stop", name)
        return self.engine.state(name)[1]

    def close(self) -> None:
        """Remove every container."""
        for name in dict.fromkeys(self.engine.names):
            self.engine.podman("rm", "--force", "--time", "2", name, check=False)
        self.engine.podman("volume", "rm", "--all", "--force", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)
