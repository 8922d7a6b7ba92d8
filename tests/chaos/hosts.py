"""Two "hosts" on this machine: processes that share nothing but the addresses of broker and database.

As root each host has a network, a host name, process ids and a ``/dev/shm`` of its own (Linux namespaces), and its
cable can be pulled. Without that right a host is an address of its own on loopback, behind proxies that swallow all.
"""

import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
from dramatiq.message import Message

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.pool_reports import PoolReport
from switchyard.files.addresses import StorageAddress
from switchyard.wiring import build_yard
from switchyard.workers.shared.fork import die_with_parent
from tests.chaos import faked_clock
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.hosts_yard import YARD
from tests.chaos.ledger import Account, Ledger, account
from tests.chaos.load import FIRST, QUEUE, Producers, declare_job, enqueue, let_pass
from tests.chaos.pools import MANAGE, RunningPool
from tests.environment import SERVER
from tests.processes import is_alive
from tests.waiting import wait_for

SETTINGS: Final = "tests.chaos.hosts_yard.settings"
UNSHARE: Final = ("unshare", "--net", "--uts", "--pid", "--mount-proc", "--fork", "--kill-child", "sh", "-c")
# The first process of a host: all others end with it.
FIRST_PROCESS: Final = """
mount -t tmpfs none /dev/shm && echo $0 > /proc/sys/kernel/hostname && ip link set lo up && exec sleep infinity
"""
_NETWORKS: Final = itertools.count()
FAULTS: Final = ("cut", "killed", "ahead", "behind")
WRONG_S: Final = {"ahead": 61, "behind": -61}
CUT_S: Final = 25.0


@functools.cache
def has_namespaces() -> bool:
    """Return whether this account may make networks and host names."""
    tried = subprocess.run([*UNSHARE, "ip link add veth0 type veth peer name veth1"], capture_output=True)
    return tried.returncode == 0


class Host:
    """A host, with a folder and a ledger of its own.

    Args:
        number: Unlike those of the test's other hosts; from 1.
        database_port: 0 for an SQLite file of its own.
        place_url: Of a server that keeps the messages, beside the broker; "" where that does.
        clock_s: Seconds that its clock is ahead.
        past_proxy: Connect to the database itself, which must listen there: a proxy would outlive a cut.
        bucket: Address of the storage of files, whose server is on this machine.
        settings: Of all its processes.
    """

    def __init__(
        self, folder: Path, number: int, *, broker_port: int, database_port: int = 0, place_url: str = "",
        clock_s: int = 0, past_proxy: bool = False, bucket: StorageAddress | None = None, settings: str = SETTINGS,
    ) -> None:  # fmt: skip
        self.name = f"host-{number}"
        self.folder = folder / self.name
        self.folder.mkdir()
        self.ledger = Ledger(self.folder / "ledger")
        self.clock_s = clock_s
        self._started: list[RunningPool] = []
        self._first: subprocess.Popen[bytes] | None = None
        self._first_pid = 0
        network = next(_NETWORKS)  # never that of a host before: a kernel may take its time to remove it
        self._link = f"sy{os.getpid()}-{network}"
        address = self.address = f"127.0.0.{number + 1}"
        if has_namespaces():
            address = self._make_network(f"10.{100 + os.getpid() % 150}.{os.getpid() // 150 % 250}.{network % 64 * 4}")
        self._proxies: list[FaultProxy] = []
        broker_url = f"redis://{address}:{self._port_of(broker_port, address)}/0"
        self._own_environment = {"DJANGO_SETTINGS_MODULE": settings, "SWITCHYARD_BROKER_URL": broker_url}
        if place_url:
            place = urlsplit(place_url)
            login, _, _ = place.netloc.rpartition("@")
            reached = place._replace(netloc=f"{login}@{address}:{self._port_of(place.port, address)}").geturl()
            self._own_environment |= {"SWITCHYARD_BROKER_URL": reached, "SWITCHYARD_REDIS_URL": broker_url}
        if bucket is not None:
            port = self._port_of(urlsplit(str(bucket.options["endpoint_url"])).port, address)
            self._own_environment["SWITCHYARD_STORAGE_URL"] = (
                f"s3://{bucket.bucket}/{bucket.prefix}?endpoint_url=http://{address}:{port}"
                f"&region={bucket.options['region_name']}&path_style=1"
            )
        if database_port and not past_proxy:
            database_port = self._port_of(database_port, address)
        self._database_url = f"sqlite:///{self.folder / 'db.sqlite3'}"
        if database_port:
            self._database_url = f"postgresql://yard@{address}:{database_port}/postgres"

    def start(self, *arguments: str, release: str = "", ready: str = "") -> RunningPool:
        """Start ``manage.py`` there with arguments.

        Args:
            release: ``new`` for code that has one more actor.
            ready: Wait until something that matches was printed.
        """
        log = self.folder / f"{len(self._started)}-{arguments[0]}.log"
        command = [*self._inside(), *MANAGE, *arguments]
        started = RunningPool.started(command, log, cwd=self.folder, env=self._environment(release))
        self._started.append(started)
        if ready:
            started.wait_for_log(ready)
        return started

    def start_pool(self, name: str, *, release: str = "") -> RunningPool:
        return self.start("runpool", name, release=release, ready=f"pool {name}: ready")

    def terminate(self, started: RunningPool) -> None:
        parent = psutil.Process(started.pid)
        [found] = parent.children() if self._first else [parent]
        found.terminate()
        started.process.wait(60)

    def cut(self) -> None:
        if self._first:
            _run("ip", "link", "set", self._link, "down")
        else:
            for proxy in self._proxies:
                proxy.blackhole()

    def heal(self) -> None:
        if self._first:
            _run("ip", "link", "set", self._link, "up")
        else:
            for proxy in self._proxies:
                proxy.pass_()

    def kill(self) -> None:
        """Kill all its processes at once. Its cable stays."""
        if self._first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._first_pid, signal.SIGKILL)
            self._first.wait(60)
        below = [pid for started in self._started for pid in started.children().values()]
        for started in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.process.wait(60)
        wait_for(lambda: not any(is_alive(pid) for pid in below), what=f"end of {self.name}")

    def log(self) -> str:
        return "\n".join(f"--- {self.name} {one.log_path.name}\n{one.log()[-3_000:]}" for one in self._started)

    def close(self) -> None:
        if self._first and Path(f"/sys/class/net/{self._link}").exists():
            _run("ip", "link", "delete", self._link)  # connections that nobody answers would keep it
        self.kill()
        for proxy in self._proxies:
            proxy.close()
        self.ledger.close()

    def _port_of(self, port: int, address: str) -> int:
        """Return the port at an address of this machine that leads to a port of its loopback."""
        self._proxies.append(FaultProxy(port, host=address).__enter__())
        return self._proxies[-1].port

    def _make_network(self, net: str) -> str:
        start, _, last = net.rpartition(".")
        outside, inside = f"{start}.{int(last) + 1}", f"{start}.{int(last) + 2}"
        self._first = subprocess.Popen(
            [*UNSHARE, FIRST_PROCESS, self.name], stderr=subprocess.DEVNULL, preexec_fn=die_with_parent(signal.SIGKILL)
        )
        self._first_pid = wait_for(self._find_first, what=f"first process of {self.name}")
        _run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", str(self._first_pid))
        _run("ip", "address", "add", f"{outside}/30", "dev", self._link)
        _run("ip", "link", "set", self._link, "up")
        _run("nsenter", "--target", str(self._first_pid), "--net", "sh", "-c",
             f"ip address add {inside}/30 dev eth0 && ip link set eth0 up")  # fmt: skip
        self.address = inside
        return outside

    def _find_first(self) -> int:
        """Return the process once it waits: then its host name is set."""
        children = psutil.Process(self._first.pid).children()
        return next((one.pid for one in children if one.name() == "sleep"), 0)

    def _inside(self) -> Sequence[str]:
        if not self._first:
            return ()
        entered = ("nsenter", "--target", str(self._first_pid), "--net", "--uts", "--pid", "--mount")
        return (*entered, "sh", "-c", 'cd "$0" && exec "$@"', str(self.folder))

    def _environment(self, release: str) -> dict[str, str]:
        return {
            **os.environ, **self._own_environment, "SWITCHYARD_STATE_DIR": str(self.folder),
            "PROMETHEUS_MULTIPROC_DIR": str(self.folder / "metrics"), "DATABASE_URL": self._database_url,
            "CHAOS_LEDGER": str(self.ledger.path), "CHAOS_RELEASE": release, "CHAOS_CLOCK_S": str(self.clock_s),
            **faked_clock.environment(self.clock_s),
        }  # fmt: skip


def _run(*command: str) -> None:
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin")
    done = subprocess.run([program or command[0], *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


class TwoHosts:
    """Two hosts on one yard, a broker to send with, and the ledgers of all three.

    Args:
        place: Of :func:`switchyard.wiring.build_yard`; the Valkey of the tests is beside the server at ``place_url``.
    """

    def __init__(self, folder: Path, database_port: int, *, place: Any = None, place_url: str = "") -> None:
        self._folder, self.ledger, self._database_port = folder, Ledger(folder / "ledger"), database_port
        self._place_url = place_url
        self._client = connect(SERVER.url)
        options = {"url": place_url} if place_url else {}
        self.broker: Any = build_yard(YARD, self._client, Keys(), place=place, **options)
        declare_job(self.broker, self.ledger, QUEUE)
        self.hosts: list[Host] = []

    def add(self, *, clock_s: int = 0) -> Host:
        options: dict[str, Any] = {"database_port": self._database_port, "place_url": self._place_url}
        self.hosts.append(Host(self._folder, len(self.hosts) + 1, clock_s=clock_s, broker_port=SERVER.port, **options))
        return self.hosts[-1]

    def start_pools(self) -> None:
        """Start the pool ``work`` on all hosts, at the same time."""
        for pool in [host.start("runpool", "work") for host in self.hosts]:
            pool.wait_for_log("pool work: ready", 120)

    def account(self) -> Account:
        """Return the account over all ledgers, and check what no fault may do."""
        ledgers = (self.ledger, *(host.ledger for host in self.hosts))
        found = account(entry for ledger in ledgers for entry in ledger.entries())
        logs = "\n".join(host.log() for host in self.hosts)
        assert (found.lost, found.unexpected, found.dead) == ((), (), ()), f"{found}\n{logs}"
        return found

    def completed(self) -> set[str]:
        return {job for host in self.hosts for job in host.ledger.jobs("completed")}

    def send(self, actor: str, job: str, *, queue: str = QUEUE, delay_ms: int | None = None, **options: Any) -> None:
        self.ledger.note("attempted", job)
        self.broker.enqueue(Message(queue, actor, (job,), {}, options, job), delay=delay_ms)
        self.ledger.note("accepted", job)

    def reports(self) -> list[PoolReport]:
        return facilities(self.broker).pools.read_all()

    def close(self) -> None:
        for host in self.hosts:
            host.close()
        self.broker.close()
        self._client.close()
        self.ledger.close()


def harm(fault: str, host: Host, *, cut_s: float = CUT_S) -> None:
    """Cut a host off for longer than a lease, or kill it; one with a wrong clock is killed as well."""
    if fault == "cut":
        host.cut()
        let_pass(cut_s)
        host.heal()
    else:
        host.kill()


def running_on(host: Host) -> set[str]:
    return set(host.ledger.jobs("started")) - set(host.ledger.jobs("completed"))


def begun_at(host: Host, job: str) -> float:
    found = host.ledger.of("started", job)
    return found[0].at_s if found else 0.0


def take_over(two: TwoHosts, fault: str, *, wait_until_done: Callable[[], None], cut_s: float = CUT_S) -> list[float]:
    """Harm one of two hosts under load; the other completes everything.

    Returns:
        Seconds after which each job that had run on the harmed host began on the other one, sorted.
    """
    harmed, other = two.add(clock_s=WRONG_S.get(fault, 0)), two.add()
    harmed.start_pool("work")
    taken = [f"long-{number}." for number in range(4)]
    for job in taken:
        enqueue(two.broker, two.ledger, job, 1_500, FIRST)
    wait_for(lambda: set(taken) <= set(harmed.ledger.jobs("started")), what="the jobs run on the first host")
    # Half of the messages wait there when it is harmed.
    other.start_pool("work")
    held = [f"held-{number}." for number in range(8)]
    for job in held:
        enqueue(two.broker, two.ledger, job, 4_000, FIRST)
    for number in range(20):
        enqueue(two.broker, two.ledger, f"later-{number}.", 5, delay_ms=8_000, max_age=60_000)
    producers = Producers(two.broker, two.ledger, per_s=100, threads=2, ms=20, plain=True)
    producers.start()
    producers.wait_for_accepted(300)

    running = running_on(harmed)
    harmed_s = time.monotonic()
    harm(fault, harmed, cut_s=cut_s)
    producers.wait_for_accepted(200)
    wait_for(lambda: {*held, *taken} <= two.completed(), 120, what="what ran there was done elsewhere")
    producers.stop()
    wait_until_done()

    found = two.account()
    moved_s = sorted(at_s - harmed_s for job in running if (at_s := begun_at(other, job)))
    print(
        f"{fault}: {len(found.accepted)} accepted, lost {len(found.lost)}, twice {len(set(found.duplicated))}; "
        f"{len(moved_s)} of {len(running)} that ran there began on the other host after "
        f"{', '.join(f'{s:.1f}' for s in (*moved_s[:1], *moved_s[-1:]))} s"
    )
    assert set(found.duplicated) <= set(harmed.ledger.jobs("started")), "twice only where the other host had begun"
    return moved_s
