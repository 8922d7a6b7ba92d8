"""A pool that works a queue which never empties, on a clock of its own: its starts so far, and the one that comes."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

LEAST_MS = 5.0
# Starts between which it is seen.
SEEN_IN = 40


@dataclass(frozen=True)
class Work:
    """Work of a pool until 0, and after it. Times in ms.

    Args:
        ended: Start and end of each run that is over by 0, the last end last.
        running: Starts of those that run at 0.
        ahead: Jobs before the one that is asked about, which starts at ``starts_at``.
    """

    slots: int
    ended: list[tuple[int, int]]
    running: list[int]
    ahead: int
    starts_at: int


def run_times(draw: random.Random) -> Callable[[], float]:
    """Return a source of run times in ms: nearly equal ones, even ones, exponential ones, or some much longer."""
    mean = draw.uniform(40.0, 4_000.0)
    kinds: list[Callable[[], float]] = [
        lambda: draw.gauss(mean, mean / 8),
        lambda: draw.uniform(0.2, 1.8) * mean,
        lambda: draw.expovariate(1 / mean),
        lambda: draw.lognormvariate(0, 0.8) * mean * 0.73,
    ]
    one = draw.choice(kinds)
    return lambda: max(one(), LEAST_MS)


def worked(draw: random.Random, *, most_starts: int = 300, most_ahead: int = 150) -> Work:
    """Return a pool at some moment, and when it starts the job at some place of its queue."""
    slots, runs = draw.choice((1, 2, 4, 8, 16)), run_times(draw)
    starts = draw.randint(slots + 20, most_starts)
    ahead = draw.choice((0, draw.randint(1, 10), draw.randint(1, most_ahead)))
    free = [draw.uniform(0, runs()) for _ in range(slots)]
    heapq.heapify(free)
    done: list[tuple[float, float]] = []
    while len(done) < 2 * slots + starts + SEEN_IN + ahead + 1:
        at = heapq.heappop(free)
        done.append((at, at + runs()))
        heapq.heappush(free, done[-1][1])
    # Seen at any moment of a while: a moment in a long gap is the likelier one. What was first is forgotten.
    done = done[2 * slots :]
    now = draw.uniform(done[starts - 1][0], done[starts - 1 + SEEN_IN][0])
    ended = sorted((end, start) for start, end in done if end <= now)
    running = sorted(start for start, end in done if start <= now < end)
    to_come = [start for start, _ in done if start > now]
    return Work(
        slots,
        [(round(start - now), round(end - now)) for end, start in ended],
        [round(start - now) for start in running],
        ahead,
        round(to_come[ahead] - now),
    )
