"""Benchmark of the history: jobs at the highest rate from send to end, while their rows go into the database."""

import sqlite3
import time
from contextlib import closing

import redis

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import HISTORY, Peer
from benchmarks.peers.on_dramatiq import LANES
from benchmarks.sending import PeerFailed
from benchmarks.stage import Stage
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect

SLOTS = 8
SECONDS = 300
MOST_WAITING = 5_000
AT_ONCE = 1_000
# No row is deleted for its age or number meanwhile: all are counted.
MOST_ROWS = 100_000_000
WRITTEN_S = 600.0


def measure(bench: Bench, peer: Peer) -> Figures:
    """Send jobs for five minutes, as many as a worker ends; wait until each is in the history or counted as dropped."""
    seconds, sent, most_bytes, next_look_s = bench.count(SECONDS, least=5), 0, 0, 0.0
    keys = Keys("bench").queue(LANES[0])
    with bench.stage(peer, SWITCHYARD_HISTORY_ROWS=str(MOST_ROWS)) as stage, connect(stage.url) as client:
        stage.start_workers(1, slots=SLOTS)
        _wait_until_written(client, keys.history)
        rows_before, bytes_before = _rows(stage), stage.server.usage().used_bytes
        began_s = time.monotonic()
        while (now_s := time.monotonic() - began_s) < seconds:
            if client.hlen(keys.bodies) < MOST_WAITING:
                stage.sender.bulk(AT_ONCE, first=sent)
                sent += AT_ONCE
            else:
                time.sleep(0.01)
            if now_s >= next_look_s:
                most_bytes, next_look_s = max(most_bytes, stage.server.usage().used_bytes - bytes_before), now_s + 1
        stage.wait_for_records(sent)
        took_s = time.monotonic() - began_s
        _wait_until_written(client, keys.history)
        late_s = time.monotonic() - began_s - took_s
        rows = _rows(stage) - rows_before
        ended = {str(name, "ascii"): int(value) for name, value in client.hgetall(keys.ended).items()}
    return {
        "history_per_s": sent / took_s,
        "history_jobs": float(sent),
        "history_rows": float(rows),
        "history_dropped_rows": float(ended.get("dropped", 0)),
        "history_missing_rows": float(sent - rows - ended.get("dropped", 0)),
        "history_records_bytes": float(ended["bytes"]),
        "history_server_growth_bytes": float(most_bytes),
        "history_written_after_s": late_s,
    }


def _wait_until_written(client: redis.Redis, stream: str) -> None:
    deadline = time.monotonic() + WRITTEN_S
    while client.xlen(stream):
        if time.monotonic() > deadline:
            raise PeerFailed(f"the history writer has not written all within {WRITTEN_S:g} s")
        time.sleep(0.1)


def _rows(stage: Stage) -> int:
    with closing(sqlite3.connect(stage.folder / "db.sqlite3")) as database:
        return int(database.execute("SELECT COUNT(*) FROM switchyard_history_jobrow").fetchone()[0])


BENCHMARK = Benchmark("history", "Is every job of the highest rate accounted for?", measure, (HISTORY,), most_rounds=1)
