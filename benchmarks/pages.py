"""How long do the room's pages take beside a large backlog, and what do open pages cost the workers?

A page's time is that of its HTML, from the request to the last byte, one request after another to one web process. An
open page asks for its live part every 2 s and for the strip every 10 s, as ``room.js`` and ``frame.js`` do.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import urllib3

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import PEERS, Peer
from benchmarks.throwaway_yard import ROOT, ThrowawayYard, throwaway_yard
from switchyard.workers.shared.fork import die_with_parent

WAITING, LETTERS = 1_000_000, 100_000
REQUESTS = 15
BROWSERS = 5
LIVE_S, STRIP_S = 2.0, 10.0
RATE_PER_S, TURN_S, TURNS = 100, 20, 3

ROOM, ADMIN = "/admin/operations/", "/admin/switchyard_"
PAGES = {
    "overview": ROOM,
    "queues": f"{ROOM}queues/",
    "queue": f"{ROOM}queues/slow/",
    "workers": f"{ROOM}workers/",
    "actors": f"{ROOM}actors/",
    "actor": f"{ROOM}actors/wait_in_line/",
    "jobs": f"{ADMIN}jobs/job/",
    "jobs_waiting": f"{ADMIN}jobs/job/?state=queued",
    "jobs_failed": f"{ADMIN}jobs/job/?failures=1&since=1h",
    "jobs_by_argument": f"{ADMIN}jobs/job/?argument=customer=customer-7",
    "job": f"{ADMIN}jobs/job/{{job}}/",
    "find": f"{ROOM}find/?q=customer-7",
    "schedules": f"{ROOM}schedules/",
    "letters": f"{ADMIN}dead_letters/deadletter/",
    "letters_of_group": f"{ADMIN}dead_letters/deadletter/?fingerprint={{fingerprint}}",
    "letter": f"{ADMIN}dead_letters/deadletter/{{letter}}/change/",
    "requeue": f"{ADMIN}dead_letters/deadletter/group/{{fingerprint}}/requeue/",
    "alerts": f"{ADMIN}alerts/alert/",
    "audit": f"{ROOM}audit/",
}
LIVE = ("live/", "queues/slow/live/", "workers/live/", "queues/urgent/live/", "live/")


class Site:
    """The web, as somebody who is logged in."""

    def __init__(self, url: str, session: str) -> None:
        self._url, self._headers = url.rstrip("/"), {"Cookie": f"sessionid={session}"}
        self._http = urllib3.PoolManager(maxsize=BROWSERS)

    def get_ms(self, path: str) -> float:
        """Fetch a page, as a browser does when it is sent on to another one, and return the time until it is there.

        Raises:
            RuntimeError: it was not answered with 200, or with the page to log in.
        """
        began_s = time.perf_counter()
        answer = self._http.request("GET", self._url + path, headers=self._headers, timeout=120)
        took_ms = (time.perf_counter() - began_s) * 1_000
        if answer.status != 200 or "/login/" in (answer.geturl() or ""):
            raise RuntimeError(f"GET {path} was answered with {answer.status}: {answer.data[:200]!r}")
        return took_ms


def measure(bench: Bench, peer: Peer) -> Figures:
    """Fill a yard, time each page, then let a pool work with and without open pages."""
    waiting, letters = bench.count(WAITING, least=1_000), bench.count(LETTERS, least=1_000)
    with throwaway_yard(DJANGO_SETTINGS_MODULE="benchmarks.room_yard.settings") as yard:
        made = _fill(yard, waiting, letters)
        yard.start("runpools", "urgent", ready="pools: all ready")
        site = Site(yard.start_web(), made["session"])
        figures = {f"page_{name}_p50_ms": _median_ms(site, path.format(**made)) for name, path in PAGES.items()}
        cost = _cost_of_open_pages(yard, site)
    return figures | {"pages_slowest_p50_ms": max(figures.values()), "room_workers_cpu_percent": cost}


def _fill(yard: ThrowawayYard, waiting: int, letters: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.room_yard.fill", str(waiting), str(letters)],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent(15),
    )  # fmt: skip
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def _median_ms(site: Site, path: str) -> float:
    site.get_ms(path)
    return statistics.median(site.get_ms(path) for _ in range(REQUESTS))


def _cost_of_open_pages(yard: ThrowawayYard, site: Site) -> float:
    """Return by how much more CPU the workers take for the same jobs while the pages are open, in percent."""
    pools = psutil.Process(yard.processes[0].pid)
    without: list[float] = []
    beside: list[float] = []
    with _sender():
        for _ in range(TURNS):
            without.append(_cpu_s(pools))
            with _open_pages(site):
                beside.append(_cpu_s(pools))
    return (statistics.median(beside) / statistics.median(without) - 1) * 100


def _cpu_s(pools: psutil.Process) -> float:
    def spent() -> float:
        times = [process.cpu_times() for process in (pools, *pools.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    before = spent()
    time.sleep(TURN_S)
    return spent() - before


@contextmanager
def _sender() -> Iterator[None]:
    """Send jobs at an even rate from a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.room_yard.send", str(RATE_PER_S)],
        cwd=ROOT,
        env=dict(os.environ),
        preexec_fn=die_with_parent(15),
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _open_pages(site: Site) -> Iterator[None]:
    closed = threading.Event()

    def page(live: str) -> None:
        strip_s = 0.0
        while not closed.wait(LIVE_S):
            site.get_ms(ROOM + live)
            strip_s += LIVE_S
            if strip_s >= STRIP_S:
                strip_s = 0.0
                site.get_ms(f"{ROOM}strip/")

    pages = [threading.Thread(target=page, args=(live,)) for live in LIVE]
    for thread in pages:
        thread.start()
    try:
        yield
    finally:
        closed.set()
        for thread in pages:
            thread.join()


BENCHMARK = Benchmark(
    "pages",
    "How fast are the room's pages beside a million jobs?",
    measure,
    (PEERS["switchyard-stack"],),
    most_rounds=3,
)
