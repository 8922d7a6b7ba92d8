"""Benchmark of the supervisor's cost: the time to drain a backlog under ``runpool`` and with a bare worker."""

from benchmarks.bench import Bench, Benchmark, Figures
from benchmarks.peers import STACK, SUPERVISED, Peer
from benchmarks.stage import Stage

SLOTS = 8
# Slices are short, so that other work on the machine slows both sides down alike. The first tasks of one are left out:
# until then the worker and its server have to come back to the cores.
TURNS, LEAST_TURNS, SLICE, LEFT_OUT = 12, 1, 5_000, 1_000
# Tasks that start until a worker is paused: on a busy machine that takes a while.
PAUSED_LATE = 20_000


class Side:
    """One kind of worker with a backlog of no-ops, paused but for its slices."""

    def __init__(self, stage: Stage, backlog: int) -> None:
        self._stage = stage
        self._tasks, self._took_s = 0, 0.0
        stage.start_workers(1, slots=SLOTS)
        stage.pause_workers()
        stage.fill(backlog)

    @property
    def drain_per_s(self) -> float:
        """Tasks a second over all slices."""
        return self._tasks / self._took_s

    def run_slice(self, tasks: int) -> None:
        """Let the worker start so many tasks."""
        before = len(self._stage.records())
        self._stage.resume_workers()
        records = self._stage.wait_for_records(before + tasks)[before + tasks * LEFT_OUT // SLICE :]
        self._stage.pause_workers()
        self._tasks += len(records) - 1
        self._took_s += records[-1].started_s - records[0].started_s


def measure(bench: Bench, peer: Peer) -> Figures:
    """Drain two backlogs by turns, one with a bare worker and one with a pool of one child."""
    turns, tasks = bench.count(TURNS, least=LEAST_TURNS), bench.count(SLICE, least=200)
    backlog = 3 * turns * tasks + PAUSED_LATE  # two slices a turn
    with bench.stage(STACK) as bare_stage, bench.stage(peer) as pool_stage:
        bare, pool = Side(bare_stage, backlog), Side(pool_stage, backlog)
        for _ in range(turns):
            for side in (bare, pool, pool, bare):
                side.run_slice(tasks)
    return {"supervised_drain_per_s": pool.drain_per_s, "unsupervised_drain_per_s": bare.drain_per_s}


BENCHMARK = Benchmark("supervised", "What does a pool's supervisor cost?", measure, (SUPERVISED,))
