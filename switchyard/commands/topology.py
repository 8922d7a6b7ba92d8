"""``manage.py switchyard topology``: the declared yard as a table, and the deployment files made from it."""

import shlex
from typing import Any

import dramatiq
from django.core.management.base import CommandError, CommandParser

from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.commands import ActionParser, PrintingCommand, number_within, table, wrong
from switchyard.console.formatting import retries_text, whole_duration
from switchyard.deployment import rendered_files
from switchyard.deployment.rendered_files import RENDERED_CORES
from switchyard.middleware.retries import RETRY_DELAYS, span_of

EXAMPLES = """examples:
  manage.py switchyard topology                             queues, pools and actors
  manage.py switchyard topology --json
  manage.py switchyard topology render compose              write the files below ops/
  manage.py switchyard topology render compose --check      exit 1 when they differ
  manage.py switchyard topology render compose --cores 8    for a machine with 8 processors
  manage.py switchyard topology render kubernetes           write the files below ops/kubernetes/
  manage.py switchyard topology render systemd --value user=yard"""


class Command(PrintingCommand):
    """Print the yard, or render its deployment files."""

    help = "Print the declared yard, or render its deployment files."
    requires_system_checks: list[str] = []
    examples = EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        actions = parser.add_subparsers(dest="action", metavar="render", parser_class=ActionParser)
        render = actions.add_parser("render", help="write the deployment files")
        render.add_argument("target", choices=rendered_files.TARGETS)
        text = f'what processes="cores" stands for on the machine, default {RENDERED_CORES}'
        render.add_argument("--cores", type=number_within(1, 4_096), default=RENDERED_CORES, metavar="N", help=text)
        text = f"a value that no topology says, of {', '.join(rendered_files.VALUES)}; may be repeated"
        render.add_argument("--value", action="append", default=[], metavar="NAME=VALUE", help=text)
        render.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")

    def handle(self, *, action: str | None, **options: Any) -> None:
        if action == "render":
            self._render(options["target"], options["cores"], options["value"], check=options["check"])
        else:
            yard = declared_yard()
            data = as_dict(yard)
            self.answer(as_text(yard, data), data, indent=2)

    def _render(self, target: str, cores: int, given: list[str], *, check: bool) -> None:
        values = dict(text.partition("=")[::2] for text in given)
        for name, value in values.items():
            if name not in rendered_files.VALUES or not value:  # an empty user would be root
                known = ", ".join(rendered_files.VALUES)
                fact = "is given no text" if name in rendered_files.VALUES else "is not a value of these files"
                raise wrong(f"--value: {name!r} {fact}; write one of {known} as NAME=VALUE")
        rendered = rendered_files.render(target, declared_yard(), cores, values)
        root = switchyard_settings().base_dir
        if not check:
            for path in rendered_files.write(root, rendered) or ["nothing changed"]:
                self.stdout.write(path)
            if missing := [path for path in rendered_files.BESIDE.get(target, ()) if not (root / path).exists()]:
                self.stderr.write(f"the files need {', '.join(missing)}: copy it from Switchyard's repository")
        elif lines := rendered_files.differences(root, rendered):
            self.stdout.write("\n".join(lines))
            again = f" --cores {cores}" if cores != RENDERED_CORES else ""
            again += "".join(f" --value {shlex.quote(text)}" for text in given)
            raise CommandError(f"files differ from the yard; run: manage.py switchyard topology render {target}{again}")


QUEUE_HEAD = [
    "queue", "starts within", "ends within", "waiting at most", "limit soft / hard", "retries", "calls", "pool",
    "retry pool", "actors",
]  # fmt: skip
POOL_HEAD = [
    "pool", "kind", "children x slots", "prefetch", "nice", "db connections", "child at most", "container", "serves"
]  # fmt: skip


# Fields that the JSON of a queue has as they are declared.
AS_DECLARED = ("name", "objective_ms", "done_objective_ms", "soft_limit_ms", "hard_limit_ms", "max_depth")


def as_dict(yard: Yard) -> dict[str, Any]:
    """Return the yard as plain data: durations in ms, as declared."""
    actors = _actors_by_queue()
    return {
        "queues": [_queue(yard, queue, actors.get(queue.name, [])) for queue in yard.queues],
        "pools": [_pool(yard, pool) for pool in yard.pools],
        "own_retries": _own_retries(yard),
        "retry_speed": yard.retry_speed,
    }


def as_text(yard: Yard, data: dict[str, Any]) -> str:
    """Return the yard as tables: queues, actors with retries of their own, pools, and the memory of all containers."""
    own = [[actor["actor"], actor["queue"], _retries(actor)] for actor in data["own_retries"]]
    speed = f"Retries come {yard.retry_speed:,} times as fast as declared: retry_speed of the yard."
    tables = [
        table(QUEUE_HEAD, map(_queue_cells, data["queues"])),
        table(["actor", "queue", "retries of its own"], own),
        table(POOL_HEAD, map(_pool_cells, data["pools"])),
        rendered_files.summary(yard),
        speed if yard.retry_speed > 1 else "",
    ]
    return "\n\n".join(filter(None, tables))


def _queue_cells(queue: dict[str, Any]) -> list[str]:
    starts_ms, ends_ms, most = (queue[name] for name in ("objective_ms", "done_objective_ms", "max_depth"))
    return [
        queue["name"],
        "no promise" if starts_ms is None else whole_duration(starts_ms),
        "-" if ends_ms is None else whole_duration(ends_ms),
        "any number" if most is None else f"{most:,}",
        f"{whole_duration(queue['soft_limit_ms'])} / {whole_duration(queue['hard_limit_ms'])}",
        _retries(queue["retry"]),
        queue["calls"] or "-",
        *(", ".join(queue[name]) or "none" for name in ("pools", "retry_pools", "actors")),
    ]


def _pool_cells(pool: dict[str, Any]) -> list[str]:
    count, most = pool["processes"], pool["memory_limit_bytes"]
    return [
        *(pool["name"], pool["kind"], f"{f'cores ({count} here)' if pool['per_core'] else count} x {pool['slots']}"),
        *(str(pool[name]) for name in ("prefetch", "nice", "database_connections")),
        *("no limit" if most is None else f"{most / 1e6:,.0f} MB", f"{pool['memory_mib']:,}M"),
        ", ".join(pool["serves"]),
    ]


def _actors_by_queue() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, actor in sorted(dramatiq.get_broker().actors.items()):
        found.setdefault(actor.queue_name, []).append(name)
    return found


def _queue(yard: Yard, queue: Queue, actors: list[str]) -> dict[str, Any]:
    return {
        **{name: getattr(queue, name) for name in AS_DECLARED},
        "retry": {
            "max_retries": queue.retry.retries,
            "base_ms": queue.retry.base_ms,
            "cap_ms": queue.retry.cap_ms,
            "delays_ms": list(queue.retry.delays_ms),
            "own_backoff": queue.retry.backoff is not None,
            "span_ms": list(queue.retry.span_ms()),
        },
        "calls": queue.calls,
        "pools": [pool.name for pool in yard.pools_of(queue.name)],
        "retry_lane": queue.retry_lane,
        "retry_pools": [pool.name for pool in yard.pools_of(queue.retry_lane)],
        "dead_list": queue.dead_list,
        "actors": actors,
    }


def _pool(yard: Yard, pool: Pool) -> dict[str, Any]:
    return {
        "name": pool.name,
        "kind": pool.kind,
        "processes": pool.children,
        "per_core": pool.per_core,
        "slots": pool.slots,
        "prefetch": 2 * pool.slots if pool.prefetch is None else pool.prefetch,
        "nice": pool.nice,
        "cpus": list(pool.cpus),
        "database_connections": pool.most_connections,
        "isolated": pool.most_isolated,
        "recycle_after": pool.recycle_after,
        "memory_limit_bytes": pool.memory_limit_bytes,
        "memory_mib": rendered_files.memory_mib(pool),
        "serves": list(yard.served_by(pool)),
    }


def _own_retries(yard: Yard) -> list[dict[str, Any]]:
    """Return the actors whose options replace something of their queue's policy."""
    queues = {queue.name: queue.retry for queue in yard.queues}
    return [
        {
            "actor": name,
            "queue": actor.queue_name,
            "max_retries": actor.options.get("max_retries", queues[actor.queue_name].retries),
            "span_ms": list(span_of(actor, queues[actor.queue_name])),
        }
        for name, actor in sorted(dramatiq.get_broker().actors.items())
        if actor.queue_name in queues and RETRY_DELAYS & actor.options.keys()
    ]


def _retries(retry: dict[str, Any]) -> str:
    least, most = retry["span_ms"]
    return retries_text(retry["max_retries"], (least, most))
