"""Interpreters of the peers: the project's own for Dramatiq's brokers, else one each, created on first use."""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import postgres
from benchmarks.peers import Peer

LOCKS = Path(__file__).resolve().parent / "peers"
INSTALL_TIMEOUT_S = 600


class CannotPrepare(Exception):
    """A peer cannot be measured on this machine."""


class Environments:
    """Folder of the peers' environments, each installed from the lock file beside its adapter.

    Args:
        folder: State folder; each peer's environment is below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def prepare(self, peers: Sequence[Peer], left_out: list[str]) -> list[Peer]:
        """Install missing peers; return those that can be measured, and report the others with the reason."""
        ready = []
        for peer in peers:
            try:
                self._prepare(peer)
                ready.append(peer)
            except (CannotPrepare, postgres.NoPostgres) as error:
                if (note := f"{peer.name} is left out: {error}") not in left_out:
                    left_out.append(note)
        return ready

    def sender(self, peer: Peer) -> list[str]:
        """Return the command that sends a peer's tasks."""
        if peer.needs == "node":
            return ["node", str(LOCKS / f"{peer.adapter}.mjs"), "send"]
        return [self._python(peer), "-m", "benchmarks.peers.sender", peer.adapter]

    def worker(self, peer: Peer, slots: int) -> list[str]:
        """Return the command that runs a peer's tasks."""
        if peer.needs == "node":
            return ["node", str(LOCKS / f"{peer.adapter}.mjs"), "work", str(slots)]
        return [self._python(peer), "-m", "benchmarks.peers.worker", peer.adapter, str(slots)]

    def variables(self, peer: Peer) -> dict[str, str]:
        """Return the environment variables by which its processes find what is installed."""
        if peer.needs == "node":
            return {"BENCH_MODULES": str(self._home(peer) / "node_modules")}
        return {}

    @contextlib.contextmanager
    def database(self, peer: Peer) -> Iterator[str]:
        """Run the database that a peer needs beside the server, and yield its URL; "" when it needs none."""
        if peer.needs != "postgres":
            yield ""
            return
        with postgres.temporary() as url:
            yield url

    @contextlib.contextmanager
    def rabbitmq(self, peer: Peer) -> Iterator[str]:
        """Run the RabbitMQ server that a peer needs, and yield its URL; "" when it needs none."""
        if peer.needs != "rabbitmq":
            yield ""
            return
        from tests.addons.rabbitmq.server import RabbitServer  # needs pika

        server = RabbitServer(Path(tempfile.mkdtemp(prefix="switchyard-bench-rabbitmq-"))).start()
        try:
            yield server.url
        finally:
            server.stop()

    def _prepare(self, peer: Peer) -> None:
        if peer.needs == "rabbitmq" and not _has_rabbitmq():
            raise CannotPrepare("RabbitMQ or pika is not here; run bin/test once, or: sudo apt install rabbitmq-server")
        if peer.needs == "postgres":
            postgres.provide()
        if peer.needs == "node":
            self._install_node(peer)
        elif _lock(peer).exists():
            self._install_python(peer)

    def _install_python(self, peer: Peer) -> None:
        home, lock = self._home(peer), _lock(peer)
        if (home / "complete").exists():
            return
        shutil.rmtree(home, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(home))
        python = str(home / "bin" / "python")
        _run(python, "-m", "pip", "install", "--quiet", "--no-input", "--require-hashes", "-r", str(lock))
        (home / "complete").touch()

    def _install_node(self, peer: Peer) -> None:
        if shutil.which("node") is None or shutil.which("npm") is None:
            raise CannotPrepare("node or npm is not on PATH; install Node.js 20 or newer")
        home = self._home(peer)
        if (home / "complete").exists():
            return
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCKS / peer.adapter / name, home)
        # Not "ci": it refuses a lock that leaves out the optional native parts of other systems.
        _run("npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", cwd=home)
        (home / "complete").touch()

    def _home(self, peer: Peer) -> Path:
        lock = _lock(peer)
        content = lock.read_bytes() if lock.exists() else (LOCKS / peer.adapter / "package-lock.json").read_bytes()
        return self._folder / f"{peer.adapter}-{hashlib.sha256(content).hexdigest()[:12]}"

    def _python(self, peer: Peer) -> str:
        return str(self._home(peer) / "bin" / "python") if _lock(peer).exists() else sys.executable


def _lock(peer: Peer) -> Path:
    return LOCKS / f"{peer.adapter}.txt"


def _has_rabbitmq() -> bool:
    if importlib.util.find_spec("pika") is None:
        return False
    from tests.addons.rabbitmq.server import INSTALLED

    return INSTALLED.exists() or shutil.which("rabbitmq-server-unpacked") is not None


def _run(*command: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, env=os.environ, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotPrepare(f"{' '.join(command[:3])} did not work: {error}") from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise CannotPrepare(f"{' '.join(command[:5])} ended with {done.returncode}: {' | '.join(last)}")
