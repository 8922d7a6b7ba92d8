"""An image, and a yard of containers: from nothing to green, a job of each product, faults, a roll, and the end."""

import contextlib
import http.client
import json
import re
import shutil
import struct
import subprocess
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.topology import YARD
from switchyard.broker.redis import acl
from switchyard.embedded.server import free_port
from tests.chaos.postgres import PostgresUnderTest
from tests.chaos.server import server_binary
from tests.factories.pictures import chunk
from tests.factories.smtp import Recorder, smtp_server
from tests.tls import Authority, GuardedServer
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]
ROOT = Path(__file__).resolve().parents[2]
BASE, IMAGE = "localhost/base:bookworm", "localhost/switchyard"
# A base such as Python's slim image, which is in no registry that tests reach; neither has manuals and package lists.
INCLUDE = "python3,python3-venv,python-is-python3,ca-certificates"
WITHOUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")
CLEAN = 'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/usr/share/perl "$1"/usr/lib/*/gconv'
# Of an older Python than that which downloads: pip would leave out what only it needs.
MARKER = re.compile(r" ; python_full_version[^\\\n]*")
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "ops/compose.yaml").read_text())["services"]
POOLS = ("pool-urgent", "pool-default", "pool-images", "pool-slow", "pool-billing")
SECRETS = ("DJANGO_SECRET_KEY", "SWITCHYARD_PAYMENT_SECRET", "SWITCHYARD_METRICS_TOKEN")
TOKEN = """
from django.contrib.auth.models import User
from switchyard.api.tokens import create_token
ada, _ = User.objects.get_or_create(username="ada", is_staff=True, is_superuser=True)
print(create_token(owner=ada, scopes=["submit", "read", "operate"], name="test")[1])
"""
MOST_BYTES = 450_000_000
LOOK = "id -u; touch x; touch /srv/media/x; for name in cc gcc g++ make pip; do command -v $name; done; true"
PART = "frontier"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001"
    "a5f645400000000049454e44ae426082"
)
LARGE_PX = 4_990
# An idle pool of pictures fits, a large picture in it does not.
TOO_SMALL = "200m"


@dataclass
class Engine:
    """Builds images and runs containers; :meth:`remove` takes all of them away.

    Args:
        folder: For images, containers and wheels.
    """

    folder: Path
    names: list[str] = field(default_factory=list)

    @property
    def storage(self) -> tuple[str, ...]:
        return ("--root", f"{self.folder}/images", "--runroot", f"{self.folder}/run", "--storage-driver", "overlay")

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # crun needs a control group that this may not be; runc runs in both kinds.
        own = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")
        command = ["podman", *self.storage, *own, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0 or not check, f"{arguments}: {done.stderr[-2_000:]}"
        return done

    def make_base(self) -> None:
        base = self.folder / "base.tar"
        excluded = [f"--dpkgopt=path-exclude={path}" for path in WITHOUT]
        command = ["mmdebstrap", "--variant=minbase", f"--include={INCLUDE}", *excluded, f"--customize-hook={CLEAN}"]
        subprocess.run([*command, "bookworm", str(base)], capture_output=True, check=True, timeout=600)
        self.podman("import", str(base), BASE)
        base.unlink()

    def fetch_wheels(self, *extras: str) -> None:
        """Download what the locks name, for the base's own Python."""
        wheels = self.folder / "wheels"
        wheels.mkdir(exist_ok=True)
        lock = self.folder / "lock.txt"
        lock.write_text(MARKER.sub("", (ROOT / "requirements.txt").read_text()))
        files = [lock, *(ROOT / f"ops/requirements-{extra}.txt" for extra in extras)]
        command = ["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        named = [part for file in files for part in ("-r", str(file))]
        subprocess.run([*command, "--python-version", "3.11", "-d", str(wheels), *named], check=True, timeout=600)
        (self.folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")

    def build(self, release: str, extras: str = "s3") -> None:
        """Build the image of a release from ``ops/Dockerfile`` as it is, without a network."""
        arguments = {"BASE": BASE, "SWITCHYARD_RELEASE": release, "EXTRAS": extras}
        given = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
        mounted = [f"{self.folder}/wheels:/wheels:ro", f"{self.folder}/pip.conf:/etc/pip.conf:ro"]
        command = [
            *("buildah", *self.storage, "build", "--isolation", "chroot", "--format", "docker", "--layers"),
            *(part for each in mounted for part in ("-v", each)),
            *given,
            *("-f", "ops/Dockerfile", "-t", f"{IMAGE}:{release}", "."),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-4_000:]

    def size_bytes(self, release: str) -> int:
        [found] = json.loads(self.podman("image", "inspect", f"{IMAGE}:{release}").stdout)
        return int(found["Size"])

    def run(self, name: str, release: str, options: list[str], command: list[str], *, wait: bool = False) -> str:
        """Run a container, confined as compose does, on this machine's network; return its output if waited for."""
        self.podman("rm", "--force", name, check=False)
        self.names.append(name)
        confined = [
            *("--name", name, "--network", "host", "--no-healthcheck", "--init", "--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--ulimit", "nofile=10000:20000", "--ulimit", "nproc=4096:4096"),
        ]
        detached = [] if wait else ["--detach"]
        return self.podman("run", *detached, *confined, *options, f"{IMAGE}:{release}", *command).stdout

    def logs(self, name: str) -> str:
        done = self.podman("logs", name, check=False)
        return done.stdout + done.stderr

    def state(self, name: str) -> tuple[bool, int]:
        """Return whether a container runs, and its exit code."""
        [found] = json.loads(self.podman("inspect", name).stdout)
        return bool(found["State"]["Running"]), int(found["State"]["ExitCode"])

    def remove(self) -> None:
        for name in dict.fromkeys(self.names):
            self.podman("rm", "--force", "--time", "5", name, check=False)
        self.podman("volume", "rm", "--all", "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


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
        for name in dict.fromkeys(self.engine.names):
            self.engine.podman("rm", "--force", "--time", "2", name, check=False)
        self.engine.podman("volume", "rm", "--all", "--force", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine with the image of the release ``one``."""
    for program in ("podman", "runc", "buildah", "mmdebstrap"):
        assert shutil.which(program), (
            f"{program} is not installed; run: apt-get install podman runc buildah catatonit mmdebstrap"
        )
    engine = Engine(Path(tempfile.mkdtemp(prefix="switchyard-containers-")))
    try:
        engine.make_base()
        engine.fetch_wheels("s3", "rabbitmq")
        engine.build("one")
        yield engine
    finally:
        engine.remove()


@pytest.fixture
def yard(engine, tmp_path) -> Iterator[ContainerYard]:
    """A yard on a PostgreSQL and a Redis of this machine, which takes TLS alone and the users of the rendered file."""
    rendered = acl.render(acl.roles(YARD.keys.queue(queue.name) for queue in YARD.queues))
    users = re.sub(r"user (\S+) off", r"user \1 on >\1", rendered)
    authority = Authority(tmp_path / "authority")
    broker = GuardedServer(tmp_path / "server", server_binary("redis-server"), users, authority=authority)
    with (
        contextlib.closing(broker),
        PostgresUnderTest() as postgres,
        contextlib.closing(ContainerYard(engine, broker, authority.file, postgres.url)) as yard,
    ):
        yield yard


def test_image_is_small_and_runs_without_rights_and_without_a_compiler(engine, capsys):
    size = engine.size_bytes("one")
    with capsys.disabled():
        print(f"image: {size / 1e6:.0f} MB")

    assert size <= MOST_BYTES
    assert engine.run("look", "one", ["--rm"], ["sh", "-c", LOOK], wait=True).split() == ["10001"]


def test_image_without_its_secrets_refuses_to_start_and_names_the_first(engine):
    done = engine.podman("run", "--rm", "--network", "host", "--no-healthcheck", "--ulimit", "nofile=10000:20000",
                         "--ulimit", "nproc=4096:4096", f"{IMAGE}:one", check=False)  # fmt: skip

    assert done.returncode == 78
    assert "DJANGO_SECRET_KEY: is not set" in done.stderr + done.stdout


def test_bill_of_materials_names_every_package_with_its_licence(engine):
    bill = json.loads(engine.run("bill", "one", ["--rm"], ["cat", "sbom.json"], wait=True))

    components = {component["purl"].partition("@")[0]: component for component in bill["components"]}
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert {"pkg:pypi/django", "pkg:pypi/dramatiq", "pkg:pypi/boto3", "pkg:deb/debian/libc6"} <= components.keys()
    assert [name for name, found in components.items() if name.startswith("pkg:pypi/") and not found["licenses"]] == []


def test_variant_for_rabbitmq_has_its_client_and_the_plain_one_has_none(engine):
    engine.build("rabbit", "s3 rabbitmq")

    command = ["python", "-c", "import pika, boto3; print('both')"]
    assert engine.run("with", "rabbit", ["--rm"], command, wait=True) == "both\n"
    command = ["python", "-c", "import importlib.util; print(importlib.util.find_spec('pika'))"]
    assert engine.run("without", "one", ["--rm"], command, wait=True) == "None\n"


def large_png() -> bytes:
    """Return a transparent picture of 25 million pixels: 100 MB in memory, 100 KB as a file."""
    rows = zlib.compress(bytes((1 + 4 * LARGE_PX) * LARGE_PX))
    header = struct.pack(">IIBBBBB", LARGE_PX, LARGE_PX, 8, 6, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND")


def picture(content: bytes) -> bytes:
    fields = [
        f'--{PART}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n64\r\n'.encode()
        for name in ("width", "height")
    ]
    named = 'Content-Disposition: form-data; name="file"; filename="a.png"'
    head = f"--{PART}\r\n{named}\r\nContent-Type: image/png\r\n\r\n"
    return b"".join([*fields, head.encode(), content, f"\r\n--{PART}--\r\n".encode()])


@pytest.fixture
def mail() -> Iterator[Recorder]:
    with smtp_server() as recorder:
        yield recorder


def reset(yard: ContainerYard, number: int) -> str:
    return yard.send("/api/v1/emails", {"to": f"ada.{number}@example.com", "template": "password_reset"})


def thumbnail(yard: ContainerYard, content: bytes = PNG) -> str:
    return yard.send("/api/v1/thumbnails", picture(content), kind=f"multipart/form-data; boundary={PART}")


def ended(yard: ContainerYard, jobs: list[str], timeout_s: float = 180.0) -> list[str]:
    states: dict[str, str] = {}

    def all_ended() -> bool:
        for job in jobs:
            if states.get(job) not in ("succeeded", "dead"):
                states[job] = yard.job(job)["state"]
        return set(states.values()) <= {"succeeded", "dead"}

    wait_for(all_ended, timeout_s, what=f"the end of {len(jobs)} jobs")
    return [states[job] for job in jobs]


@contextlib.contextmanager
def load(yard: ContainerYard) -> Iterator[list[str]]:
    """Send work again and again until the block ends; yield the ids of what was accepted."""
    sent: list[str] = []
    over = threading.Event()
    failed: list[Exception] = []

    def run() -> None:
        try:
            while not over.wait(0.05):
                sent.append(reset(yard, 1_000 + len(sent)))
        except Exception as error:  # noqa: BLE001  raised by the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()
    assert not failed, failed


def test_yard_of_containers_comes_up_works_is_hurt_is_rolled_and_ends(yard, mail, capsys):
    said: list[str] = []
    yard.environment["SWITCHYARD_SMTP_URL"] = f"smtp://127.0.0.1:{mail.port}"
    yard.prepare()
    took_s = yard.up(*POOLS)
    said.append(f"eight containers green after {took_s:.0f} s")

    # A job of each product.
    jobs = [
        yard.send("/api/v1/emails", {"to": "ada@example.com", "template": "welcome"}),
        reset(yard, 0),
        yard.send("/api/v1/reports", {"customer_id": 1, "month": "2026-01"}),
        yard.send("/api/v1/exports", {"dataset": "customers", "format": "csv"}),
        yard.send("/api/v1/reconciliations", {"month": "2026-01"}),
        thumbnail(yard),
    ]
    began_s = time.monotonic()
    assert ended(yard, jobs) == ["succeeded"] * len(jobs)
    said.append(f"{len(jobs)} jobs of the products ended after {time.monotonic() - began_s:.0f} s")

    # A container that is killed loses nothing: its leases lapse after 15 s, and another one takes its work.
    killed = [reset(yard, number) for number in range(1, 21)]
    yard.engine.podman("kill", "--signal", "KILL", "pool-urgent")
    killed += [reset(yard, number) for number in range(21, 41)]
    yard.start("pool-urgent")
    assert ended(yard, killed) == ["succeeded"] * 40

    # A job that takes more memory than its container has ends at the limit, each time with its child alone; the doctor
    # names it, and the container goes on.
    yard.stop("pool-images")
    yard.start("pool-images", memory=TOO_SMALL)
    wait_for(lambda: yard.is_up("pool-images"), 120, what="a pool of pictures with little memory")
    hog = thumbnail(yard, large_png())
    assert ended(yard, [hog]) == ["dead"]
    assert yard.job(hog)["reason"] == "poison"
    told = yard.engine.podman("exec", "web", "python", "manage.py", "switchyard", "doctor", check=False).stdout
    assert hog in told and "uses too much memory" in told
    assert yard.engine.state("pool-images")[0]
    assert ended(yard, [thumbnail(yard)]) == ["succeeded"]

    # A roll under load: the successor is up before the old one drains.
    yard.engine.build("two")
    yard.manage("switchyard", "check_backlog", release="two")
    with load(yard) as sent:
        wait_for(lambda: len(sent) > 20, what="load")
        yard.ports["pool-urgent"] = free_port()
        yard.start("pool-urgent", "two", name="pool-urgent-two", SWITCHYARD_RELEASE="two")
        wait_for(lambda: yard.is_up("pool-urgent"), 120, what="the successor")
        drained = yard.stop("pool-urgent")
        count = len(sent)
        wait_for(lambda: len(sent) > count + 20, what="load on the successor")
    assert drained == 0
    assert set(ended(yard, sent)) == {"succeeded"}
    assert {f"ada.{1_000 + number}@example.com" for number in range(len(sent))} <= set(mail.recipients)
    said.append(f"roll under load: {len(sent)} jobs, 0 lost, the old pool drained with 0")

    # Down: everything drains. The web ends what runs, and then by the signal itself, as uvicorn does.
    names = ("web", "scheduler", "history", "pool-urgent-two", *POOLS[1:])
    began_s = time.monotonic()
    assert {name: yard.stop(name) for name in names} == dict.fromkeys(names, 0) | {"web": 143}
    said.append(f"down after {time.monotonic() - began_s:.0f} s, each drained")
    with capsys.disabled():
        print("\n".join(said))
