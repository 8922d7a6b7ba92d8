"""A day with a flash sale that peaks at 150,000 tasks a second: pods, waits, cost, and what fails first. Simulated.

    python -m benchmarks.flash_sale                                 a table of layouts
    python -m benchmarks.flash_sale --plot docs/pictures/flash-sale.svg
    python -m benchmarks.flash_sale --day plan.json                 your day, by `manage.py switchyard plan --json
                                                                    --minutes 1440`, in place of the made one

Steps of a second; counts are fractions, and what waits starts in its order. docs/explanation/flash-sale.md explains it;
`python -m benchmarks.flash_sale_run` compares it with a real run.
"""

import argparse
import json
import math
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import django

DAY_S, NOON_S, PEAK = 86_400, 43_200, 150_000.0
# The task: an order's mail. It waits for 50 ms, in a pool of greenlets like the project's `webhook`.
RUN_S, POD_SLOTS, PROMISE_S = 0.05, 64, 1
# Kubernetes: the autoscaler of ops/kubernetes/hpa, and a pod whose image is on its node.
SYNC_S, METRIC_S, READY_S, DOUBLES_S, STEADY_S, DOWN_S = 15, 60, 45, 30, 300, 60
# The server's processor for a message that is sent one by one or in bulk, then fetched and acknowledged, with the whole
# stack; on a cluster that much more (`bin/bench enqueue drain cluster`). It is full at this share of a processor.
ONE_BY_ONE_US, BULK_US, RUN_US, CLUSTER, FULL = 69.0, 4.1, 16.3, 1.06, 0.7
# A sender that was refused, by 429 or a time-out, comes again so often, and so much later.
QUEUE_MOST, RETRY_AFTER_S, TRIES = 100_000, 5, 6
# A queued message of 172 bytes in the memory of the server, see docs/performance.md.
MESSAGE_BYTES = 290
# Dollars an hour: a pod of a quarter of a processor and 440 MiB, a server of two processors and 8 GB. Put yours here.
POD_PRICE, SERVER_PRICE = 0.012, 0.10


@dataclass(frozen=True, slots=True)
class Layout:
    """Brokers and pods of a simulation.

    Args:
        servers: Each has a queue of its own, of at most ``QUEUE_MOST`` messages.
        early: Pods that run from ten minutes before the sale until an hour after it.
    """

    name: str
    servers: int
    most_pods: int
    early: int = 1
    send_us: float = ONE_BY_ONE_US
    cluster: bool = False


LAYOUTS = (
    Layout("1 server, 1 to 4 pods (as rendered)", 1, 4),
    Layout("1 server, 130 pods before the sale", 1, 200, early=130),
    Layout("20 servers, 1 to 200 pods", 20, 200),
    Layout("20 servers, 130 pods before the sale", 20, 200, early=130),
    Layout("cluster of 20, 130 pods before the sale", 20, 200, early=130, cluster=True),
    Layout("4 servers, sent in bulk, 130 pods before", 4, 200, early=130, send_us=BULK_US),
    Layout("5 servers, sent in bulk, 130 pods before", 5, 200, early=130, send_us=BULK_US),
)


@dataclass(slots=True)
class Outcome:
    """Course of a day; lists have an entry for each second."""

    layout: Layout
    arrivals: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    depth: list[float] = field(default_factory=list)
    pods: list[int] = field(default_factory=list)
    waits: Counter[int] = field(default_factory=Counter)
    refused: float = 0.0
    gave_up: float = 0.0
    first: dict[str, int] = field(default_factory=dict)

    def wait_s(self, share: float) -> int:
        """Return a percentile of the waits in whole seconds."""
        left = share * self.waits.total()
        for wait_s in sorted(self.waits):
            left -= self.waits[wait_s]
            if left <= 0:
                return wait_s
        return max(self.waits)

    @property
    def cost(self) -> float:
        """Dollars of the day."""
        return sum(self.pods) / 3_600 * POD_PRICE + self.layout.servers * 24 * SERVER_PRICE

    def note(self, what: str, at_s: int) -> None:
        """Keep when something failed first in the sale."""
        if NOON_S <= at_s < NOON_S + 3_600:
            self.first.setdefault(what, at_s)


def made_day() -> list[float]:
    """Return the rate of each minute of a usual day: 200 a second at night, 1,500 at three in the afternoon."""
    return [850 - 650 * math.cos((minute / 1_440 - 0.125) * 2 * math.pi) for minute in range(1_440)]


def with_sale(minutes: Sequence[float], at_s: int = NOON_S) -> list[float]:
    """Return the rate of each second: a minute's rise to the peak at noon, a minute of it, half of it each 3 min."""
    rates = []
    for second in range(DAY_S):
        after_s = second - at_s
        rise = min(max(after_s / 60, 0.0), 1.0)
        fall = 0.5 ** (max(after_s - 120, 0) / 180)
        rates.append(minutes[second // 60 % len(minutes)] + PEAK * rise * fall)
    return rates


def simulate(layout: Layout, rates: Sequence[float], needed: Callable[[float, float, float, int], int]) -> Outcome:
    """Run a day.

    Args:
        needed: Slots for a load, run time, promise and backlog: that of the metric which the autoscaler reads.
    """
    outcome = Outcome(layout)
    ready, starting = 1, deque[tuple[int, int]]()
    waiting, depth, busy = deque[tuple[int, float]](), 0.0, deque[float](maxlen=METRIC_S)
    depths, wanted_before = deque[float](maxlen=METRIC_S), deque[int](maxlen=STEADY_S // SYNC_S)
    again: dict[int, list[float]] = {}
    up_s = down_s = 0
    factor = CLUSTER if layout.cluster else 1.0
    budget_us, most_depth = layout.servers * FULL * 1e6 / factor, layout.servers * QUEUE_MOST
    for now_s, rate in enumerate(rates):
        # Pods.
        while starting and starting[0][0] <= now_s:
            ready += starting.popleft()[1]
        pods = ready + sum(count for _, count in starting)
        least = layout.early if NOON_S - 600 <= now_s < NOON_S + 3_600 else 1
        if now_s % SYNC_S == 0:
            load = max(sum(busy) + (depth - (depths[0] if depths else 0.0)) * RUN_S, 0.0) / max(len(busy), 1)
            slots = needed(load, RUN_S, PROMISE_S, int(depth))
            wanted_before.append(math.ceil(slots / POD_SLOTS))
            wanted = max(min(max(wanted_before), layout.most_pods), least)
            if wanted > pods and (now_s >= up_s + DOUBLES_S or least > pods):
                more = wanted - pods if least > pods else min(wanted, 2 * pods) - pods
                starting.append((now_s + READY_S, more))
                up_s, pods = now_s, pods + more
                if pods == layout.most_pods:
                    outcome.note("pods at their most", now_s)
            elif wanted < pods and ready > 1 and now_s >= down_s + DOWN_S:
                ready, down_s = ready - 1, now_s
        # Sends, by how often they were refused.
        tries = [rate, *again.pop(now_s, ())]
        offered = sum(tries)
        can_start = min(depth + offered, ready * POD_SLOTS / (RUN_S + 0.0015))
        asked_us = offered * layout.send_us + can_start * RUN_US
        share = min(budget_us / asked_us, 1.0) if asked_us else 1.0
        accepted = min(offered * share, max(most_depth - depth + can_start * share, 0.0))
        started = min(can_start * share, depth + accepted)
        if share < 1:
            outcome.note("servers full", now_s)
        if accepted < offered * share - 1e-6:
            outcome.note("queues full, 429", now_s)
        if accepted < offered - 1e-6:
            *more, last = [count * (1 - accepted / offered) for count in (tries + [0.0] * TRIES)[:TRIES]]
            again[now_s + RETRY_AFTER_S] = more
            outcome.refused += more[0]
            outcome.gave_up += last
        waiting.append((now_s, accepted))
        depth += accepted - started
        left = started
        while left > 1e-9 and waiting:
            at_s, count = waiting.popleft()
            taken = min(count, left)
            outcome.waits[now_s - at_s] += taken
            if now_s - at_s > PROMISE_S:
                outcome.note("promise missed", now_s)
            left -= taken
            if count - taken > 1e-9:
                waiting.appendleft((at_s, count - taken))
        busy.append(started * RUN_S)
        depths.append(depth)
        outcome.arrivals.append(rate)
        outcome.starts.append(started)
        outcome.depth.append(depth)
        outcome.pods.append(pods)
    return outcome


def row(outcome: Outcome) -> str:
    """Return an outcome as a row of a table."""
    total = outcome.waits.total()
    late = sum(count for wait_s, count in outcome.waits.items() if wait_s > PROMISE_S) / total
    failed = min(outcome.first, key=lambda name: outcome.first[name], default="nothing")
    at = f" {outcome.first[failed] - NOON_S:+d} s" if outcome.first else ""
    deepest, sent = max(outcome.depth), sum(outcome.arrivals)
    return (
        f"| {outcome.layout.name} | {max(outcome.pods)} | {late:.1%} | {outcome.wait_s(0.5)}; {outcome.wait_s(0.99)}; "
        f"{max(outcome.waits)} | {deepest / 1e3:,.0f} k, {deepest * MESSAGE_BYTES / 1e6:,.0f} MB | "
        f"{outcome.refused / sent:.1%}; {outcome.gave_up / sent:.1%} | {failed}{at} | {outcome.cost:.2f} |"
    ).replace("%", " %")


HEAD = (
    "| layout | pods at most | late | wait p50; p99; longest, s | waiting at most | refused at first; for good | "
    "fails first | cost of the day, $ |\n| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |"
)
COLOURS = ("#9aa4b2", "#d29922", "#1f6feb", "#1a7f37", "#8250df", "#cf222e", "#0a7ea4")
WIDTH, PANEL, LEFT, BEFORE_S, AFTER_S, EVERY_S = 860, 190, 80, 120, 1_320, 6


def draw(outcomes: Sequence[Outcome]) -> str:
    """Return 24 minutes of the sale as SVG: starts a second, what waits, and pods of each layout."""
    panels: tuple[tuple[str, Callable[[Outcome], Sequence[float]]], ...] = (
        ("started a second (dashed: arrivals)", lambda each: each.starts),
        ("waiting", lambda each: each.depth),
        ("pods", lambda each: each.pods),
    )
    parts: list[str] = []
    y = 10
    for number, (outcome, colour) in enumerate(zip(outcomes, COLOURS, strict=False)):
        x, at = 10 + number % 2 * WIDTH // 2, y + number // 2 * 18
        parts.append(f'<path d="M{x} {at + 8}h24" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 30}" y="{at + 12}">{escape(outcome.layout.name)}</text>')
    y += (len(outcomes) + 1) // 2 * 18 + 10
    for title, values in panels:
        curves = [(values(each), colour, "") for each, colour in zip(outcomes, COLOURS, strict=False)]
        if not parts or title.startswith("started"):
            curves.append((outcomes[0].arrivals, "black", ' stroke-dasharray="4 3"'))
        highest = max(max(_cut(curve)) for curve, _, _ in curves) or 1.0
        parts.append(f'<text x="{LEFT}" y="{y + 12}" font-weight="bold">{escape(title)}</text>')
        for share in (0.0, 0.5, 1.0):
            at_y = y + PANEL - share * (PANEL - 30)
            parts.append(f'<path d="M{LEFT} {at_y:.0f}H{WIDTH - 10}" stroke="#d0d7de"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{at_y + 4:.0f}" text-anchor="end">{share * highest:,.0f}</text>')
        for curve, colour, dashed in curves:
            room = WIDTH - 10 - LEFT
            points = " ".join(
                f"{LEFT + room * n / (len(_cut(curve)) - 1):.1f},{y + PANEL - value / highest * (PANEL - 30):.1f}"
                for n, value in enumerate(_cut(curve))
            )
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"{dashed}/>')
        y += PANEL + 20
    parts.append(f'<text x="{LEFT}" y="{y}">11:58</text>')
    parts.append(f'<text x="{WIDTH - 10}" y="{y}" text-anchor="end">12:22</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" viewBox="0 0 {WIDTH} {y + 10}" '
        'font-family="system-ui, sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _cut(curve: Sequence[float]) -> Sequence[float]:
    return curve[NOON_S - BEFORE_S : NOON_S + AFTER_S : EVERY_S]


def main(given: Sequence[str]) -> int:
    """Simulate every layout and print the table."""
    parser = argparse.ArgumentParser(
        "benchmarks.flash_sale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--day", type=Path, metavar="FILE", help="what `plan --json` printed")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the sale there, as SVG")
    asked = parser.parse_args(given)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    from switchyard.operations.plan import slots_with_backlog

    day = made_day()
    if asked.day:
        pools = [pool["rates_per_s"] for pool in json.loads(asked.day.read_text())["pools"]]
        day = [sum(rates) for rates in zip(*pools, strict=True)]
    outcomes = [simulate(layout, with_sale(day), slots_with_backlog) for layout in LAYOUTS]
    print(HEAD, *map(row, outcomes), sep="\n")
    if asked.plot:
        asked.plot.write_text(draw(outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
