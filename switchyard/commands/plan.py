"""``manage.py switchyard plan``: slots, processes, memory and broker's servers that would keep each promise."""

import re
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.utils.module_loading import import_string

from switchyard.broker.interface import facilities
from switchyard.broker.stores.yard_facts import KEPT_MS
from switchyard.broker.topology import Yard
from switchyard.conf import declared_yard
from switchyard.console.commands import PrintingCommand, as_command_error, number_within, table, wrong
from switchyard.console.formatting import duration, time_ms
from switchyard.deployment.rendered_files import memory_mib
from switchyard.operations.plan import KEEP, STRETCHES, Demand, Outlook, PoolPlan, by_percentiles, plan, recorded

EXAMPLES = """examples:
  manage.py switchyard plan                                          by the counts of the last 24 hours
  manage.py switchyard plan --since 72h --minutes 60                 by the busiest hour of three days
  manage.py switchyard plan --topology project.next_topology.YARD    the same work in other pools
  manage.py switchyard plan --queue default --arrivals 20/s --duration p50=80ms,p95=400ms
  manage.py switchyard plan --given plan.toml --json                 several queues, see the how-to"""
HEAD = [
    "pool", "arrivals", "run, mean", "busy", "starts within", "declared: slots", "late", "p95 wait", "needs: slots",
    "late", "p95 wait", "kept by one less", "processes x slots", "memory", "broker's servers",
]  # fmt: skip

_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)")
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}
# Of the record: 72 h.
MOST_MINUTES: Final = KEPT_MS // 60_000
# An exponential distribution's: where only the median is given.
P95_OF_P50: Final = 4.3


class Command(PrintingCommand):
    """Plan slots, processes, memory and broker's servers."""

    help = "Plan slots, processes, memory and broker's servers for each promise, by recorded or given work."
    examples = EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--since", default="24h", metavar="T", help="begin of the record, at most 72h, default 24h")
        parser.add_argument("--until", default="", metavar="T", help="its end, default now")
        text = "length of the busiest stretch of the record that is planned for, default 10"
        parser.add_argument("--minutes", type=number_within(1, MOST_MINUTES), default=10, metavar="N", help=text)
        text = "dotted path of another yard that does the same work, such as project.next_topology.YARD"
        parser.add_argument("--topology", default="", metavar="PATH", help=text)
        parser.add_argument("--given", type=Path, metavar="FILE", help="TOML: arrivals and duration of each queue")
        parser.add_argument("--queue", metavar="QUEUE", help="one queue, with --arrivals and --duration")
        parser.add_argument("--arrivals", metavar="RATE", help="20/s, 300/m or 5/h")
        parser.add_argument("--duration", metavar="D", help="p50=80ms,p95=400ms; without p95 4.3 times p50")
        parser.add_argument("--promise", metavar="D", help="start within: in place of the topology's promises")
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the simulation, default 0")

    def handle(self, *args: Any, **options: Any) -> None:
        yard = _yard(options["topology"])
        lanes = _given(options)
        if lanes is None:
            lanes = _recorded(yard, options["since"], options["until"])
        for lane in lanes:
            with as_command_error("plan"):
                yard.queue_of(lane)
        promise_s = _span_s(options["promise"]) if options["promise"] else None
        minutes = options["minutes"]
        plans = plan(yard, lanes, promise_s, minutes=minutes, seed=options["seed"])
        text = (
            f"{table(HEAD, map(_row, plans))}\n\nThe busiest {minutes} min; at most 1 % late in {KEEP} of "
            f"{STRETCHES} simulations, seed {options['seed']}. Waits are ranges over all of them."
        )
        value = {"minutes": minutes, "seed": options["seed"], "pools": [_as_json(each) for each in plans]}
        self.answer(text, value, indent=2)


def _yard(path: str) -> Yard:
    try:
        yard = import_string(path) if path else declared_yard()
    except ImportError as error:
        raise wrong(f"--topology: {error}") from error
    if not isinstance(yard, Yard):
        raise wrong(f"--topology: {path} is not a Yard; name one, such as project.topology.YARD")
    return yard


def _recorded(yard: Yard, since: str, until: str) -> dict[str, Demand]:
    with as_command_error("plan"):
        store = facilities().facts
        try:
            since_ms = time_ms("--since", since) or 0
            until_ms = time_ms("--until", until) or store.server_ms()
        except ValueError as error:
            raise wrong(str(error)) from error
        lanes = recorded(store, yard.lanes, max(since_ms, until_ms - KEPT_MS), until_ms)
    if not lanes:
        raise CommandError(
            f"plan: nothing ran since {since}: facts are kept for 72 h while a history writer runs; "
            "give the work by --queue, --arrivals and --duration"
        )
    return lanes


def _given(options: dict[str, Any]) -> dict[str, Demand] | None:
    """Return the work that is given, by queue; ``None`` where it is to be read from the record."""
    one = [options[name] for name in ("queue", "arrivals", "duration")]
    if options["given"] is None:
        if not any(one):
            return None
        if not all(one):
            raise wrong("plan: --queue, --arrivals and --duration go together; give all three")
        return {options["queue"]: _demand(options["queue"], options["arrivals"], options["duration"])}
    try:
        found = tomllib.loads(options["given"].read_text(encoding="utf-8"))
        given = {queue: _demand(queue, of["arrivals"], of["duration"]) for queue, of in found.items()}
        if not given:
            raise ValueError("it has no table")
        return given
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise wrong(
            f"--given {options['given']}: {type(error).__name__}: {error}; write a table for each queue, with arrivals "
            'and duration: [default], arrivals = "20/s", duration = "p50=80ms,p95=400ms"'
        ) from error


def _demand(queue: str, arrivals: str | list[str], text: str) -> Demand:
    """Return the work of a queue; several rates are those of one minute after the other."""
    rates = []
    for rate in [arrivals] if isinstance(arrivals, str) else arrivals:
        if (found := _RATE.fullmatch(rate)) is None:
            raise wrong(f"plan: {queue}: {rate!r} is not a rate; write 20/s, 300/m or 5/h")
        rates.append(float(found[1]) / _UNITS_S[found[2]])
    if not rates:
        raise wrong(f"plan: {queue}: no rate is given; write 20/s, 300/m or 5/h")
    given = dict(part.strip().partition("=")[::2] for part in text.split(","))
    if not {"p50"} <= given.keys() <= {"p50", "p95"}:
        raise wrong(f"plan: {queue}: {text!r} is not a duration; write p50=80ms,p95=400ms")
    p50_s = _span_s(given["p50"])
    p95_s = _span_s(given["p95"]) if "p95" in given else P95_OF_P50 * p50_s
    if not 0 < p50_s <= p95_s:
        raise wrong(f"plan: {queue}: {text!r}: p50 is 0, or above p95; write p50=80ms,p95=400ms")
    return Demand(tuple(rates), by_percentiles(p50_s, p95_s))


def _span_s(text: str) -> float:
    if (found := _SPAN.fullmatch(text)) is None:
        raise wrong(f"plan: {text!r} is not a duration; write 80ms, 1.5s, 5m or 1h")
    return float(found[1]) * _UNITS_S[found[2]]


def _row(each: PoolPlan) -> list[str]:
    least, most = each.places
    return [
        each.pool.name,
        f"{max(each.demand.rates):,.3g}/s",
        duration(each.demand.run_s * 1_000),
        f"{each.demand.load:.1f}",
        "no promise" if each.promise_s is None else duration(each.promise_s * 1_000),
        *_outlook(each.declared),
        *_outlook(each.named),
        "-" if each.fewer is None or each.promise_s is None else f"{each.fewer.kept:.0%}".replace("%", " %"),
        f"{each.processes} x {each.pool.slots}",
        f"{_memory_mib(each):,}M",
        f"{least}" if least == most else f"{least} to {most}",
    ]


def _outlook(found: Outlook) -> list[str]:
    least, most = (duration(wait_s * 1_000) for wait_s in found.p95_s)
    return [str(found.slots), f"{found.late:.1%}".replace("%", " %"), f"{least} to {most}"]


def _memory_mib(each: PoolPlan) -> int:
    return memory_mib(replace(each.pool, processes=each.processes))


def _as_json(each: PoolPlan) -> dict[str, Any]:
    return {
        "pool": each.pool.name,
        "lanes": each.lanes,
        "arrivals_per_s": max(each.demand.rates),
        "rates_per_s": each.demand.rates,
        "run_mean_s": each.demand.run_s,
        "busy_slots": each.demand.load,
        "promise_s": each.promise_s,
        "declared": asdict(each.declared),
        "needed": asdict(each.named),
        "one_less": None if each.fewer is None else asdict(each.fewer),
        "processes": each.processes,
        "slots_of_a_process": each.pool.slots,
        "memory_mib": _memory_mib(each),
        "broker_servers": each.places,
    }
