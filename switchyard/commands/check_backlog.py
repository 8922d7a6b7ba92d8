"""``manage.py switchyard check_backlog``: compare the backlog with the code, before the code is deployed."""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import dramatiq
from django.core.management.base import CommandError, CommandParser
from dramatiq.broker import Broker

from switchyard.broker.admin.browse import family_stats
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Yard
from switchyard.conf import declared_yard
from switchyard.console.commands import PrintingCommand, as_command_error
from switchyard.console.formatting import counted
from switchyard.middleware.arguments import call_of, misfit, signature_of
from switchyard.middleware.logs import printable

AT_ONCE: Final = 1_000
SAMPLES: Final = 3
# Dramatiq's callbacks take two arguments: the message, and the result or the exception.
CALLBACK_ARGUMENTS: Final = 2


@dataclass(slots=True)
class Trouble:
    """Messages that the code cannot run, for one reason, with a few of their ids.

    ``kind`` is ``unknown_actor``, ``arguments``, ``queue`` (none of the yard, or no pool serves it) or ``unreadable``.
    """

    queue: str
    actor: str
    kind: str
    detail: str
    count: int = 0
    samples: list[str] = field(default_factory=list)

    def note(self, message_id: str) -> None:
        self.count += 1
        if len(self.samples) < SAMPLES:
            self.samples.append(message_id)


@dataclass(slots=True)
class Backlog:
    """Result of a comparison: messages by actor, and the messages that the code cannot run."""

    looked_at: int = 0
    by_actor: Counter[tuple[str, str]] = field(default_factory=Counter)
    troubles: dict[tuple[str, str, str, str], Trouble] = field(default_factory=dict)

    def trouble(self, queue: str, actor: str, kind: str, detail: str) -> Trouble:
        at = (queue, actor, kind, detail)
        return self.troubles.setdefault(at, Trouble(*at))


def families(broker: RedisBroker, yard: Yard) -> dict[str, QueueOperations]:
    """Return queues by name: those of the yard, then those that exist on the server only.

    Raises:
        BrokerError: the server did not answer, or refused.
    """
    pattern = re.compile(re.escape(broker.keys.queue("QUEUE").bodies).replace("QUEUE", "(.+)"))
    keys = _scan(broker.calls, broker.keys.queue("*").bodies)
    found = (pattern.fullmatch(str(key, "utf-8", "replace")) for key in keys)
    names = [*(queue.name for queue in yard.queues), *sorted(match[1] for match in found if match)]
    return {name: QueueOperations(broker.calls, broker.keys.queue(name)) for name in names}


def _scan(calls: RedisCalls, pattern: str) -> Iterator[bytes]:
    for server in calls.places().values():
        cursor = b"0"
        while True:
            cursor, keys = server.command("SCAN", cursor, "MATCH", pattern, "COUNT", 10 * AT_ONCE)
            yield from keys
            if cursor == b"0":
                break


def check_backlog(
    found: Iterable[QueueOperations], broker: RedisBroker, yard: Yard, *, report: Callable[[int], None]
) -> Backlog:
    """Compare every message of some queues, in any state, with the code; call ``report`` after each 1,000 of them.

    The next steps of a pipeline and the callbacks of a group are checked as well. Messages that are enqueued or end
    meanwhile may be missed.
    """
    backlog = Backlog()
    verdicts: dict[str, tuple[str, str, str] | None] = {}
    declared = {queue.name for queue in yard.queues}
    for family in found:
        queue = family.keys.queue
        if queue in declared:
            stats = family_stats(broker.calls, family.keys)
            for lane in (stats.live, stats.retry):
                if lane.total and not yard.pools_of(lane.name):
                    backlog.trouble(stats.queue, "*", "queue", f"no pool serves {lane.name}").count += lane.total
        for id_, body in _bodies(family):
            backlog.looked_at += 1
            if backlog.looked_at % AT_ONCE == 0:
                report(backlog.looked_at)
            try:
                message = codec.decode(body, message_id=id_, lane=queue)
            except codec.UnreadableMessage as error:
                backlog.trouble(queue, "?", "unreadable", str(error)).note(id_)
                continue
            at = (queue, message.actor_name)
            backlog.by_actor[at] += 1
            if queue not in declared:
                backlog.trouble(*at, "queue", f"the topology has no queue {queue}").note(id_)
            try:
                calls = [call_of(message), *_following(broker, message.actor_name, message.options)]
            except (TypeError, AttributeError) as error:  # options are not validated
                backlog.trouble(*at, "unreadable", f"what follows it cannot be read: {error}").note(id_)
                continue
            for call in calls:
                if call not in verdicts:
                    verdicts[call] = _verdict(broker, call)
                if (verdict := verdicts[call]) is not None:
                    backlog.trouble(queue, *verdict).note(id_)
    return backlog


def _bodies(family: QueueOperations) -> Iterator[tuple[str, bytes]]:
    cursor = b"0"
    while True:
        cursor, found = family.calls.command("HSCAN", family.keys.bodies, cursor, "COUNT", AT_ONCE)
        for id_, body in zip(found[::2], found[1::2], strict=True):
            yield str(id_, "utf-8", "replace"), body
        if cursor == b"0":
            return


def _verdict(broker: Broker, call: str) -> tuple[str, str, str] | None:
    """Return actor, kind and detail of a mismatch, or ``None``."""
    name, places, names = json.loads(call)
    actor = broker.actors.get(name)
    if actor is None:
        return name, "unknown_actor", "this code has no such actor"
    wrong = misfit(actor.fn, places, dict.fromkeys(names).keys())
    return None if wrong is None else (name, "arguments", f"{wrong}; declared as {name}{signature_of(actor.fn)}")


def _following(broker: Broker, actor_name: str, options: dict[str, Any]) -> Iterator[str]:
    """Yield the calls that a message's options lead to; tolerates malformed options."""
    for name in ("on_success", "on_failure"):
        if isinstance(callback := options.get(name), str):
            yield json.dumps([callback, CALLBACK_ARGUMENTS, []])
    step = options.get("pipe_target")
    actor = broker.actors.get(actor_name)
    if isinstance(step, dict):
        step_options = step.get("options") or {}
        ignores = step_options.get("pipe_ignore") or (actor is not None and actor.options.get("pipe_ignore"))
        yield from _described(broker, step, more=0 if ignores else 1)
    for callback in options.get("group_completion_callbacks") or ():
        yield from _described(broker, callback, more=0)


def _described(broker: Broker, message: Any, *, more: int) -> Iterator[str]:
    """Yield the call of a message described in another's options, with ``more`` additional arguments."""
    if isinstance(message, dict) and isinstance(name := message.get("actor_name"), str):
        args = [*message.get("args", ()), *[None] * more]
        yield call_of(SimpleNamespace(actor_name=name, args=args, kwargs=message.get("kwargs") or {}))
        yield from _following(broker, name, message.get("options") or {})


EXAMPLES = """run it with the new code against the broker of the old one, before you deploy:
  manage.py switchyard check_backlog                       every message, in any state
  manage.py switchyard check_backlog --queue billing --queue default
  manage.py switchyard check_backlog --json                for a pipeline; exit 1 stops it

the messages it reports would wait 10 minutes for a worker that can run them, then become dead letters; see
docs/how-to/deploy-new-code.md"""

REPORT_EVERY_S = 2.0


class Command(PrintingCommand):
    """Compare the backlog with the code. Exit 1: the code cannot run a message, or the broker does not answer."""

    help = "Compare the backlog with this code; exit 1 when this code cannot run a message. Only reads."
    examples = EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        text = "only this queue; may be repeated"
        parser.add_argument("--queue", action="append", default=[], metavar="QUEUE", help=text)

    def handle(self, *args: Any, **options: Any) -> None:
        broker = dramatiq.get_broker()
        if not isinstance(broker, RedisBroker):
            fact = f"a {type(broker).__name__} cannot be browsed"
            raise CommandError(f"check_backlog: {fact}; deploy workers first: what they do not know is parked")
        self._reported_s = time.monotonic()
        with as_command_error("check_backlog"):
            found = families(broker, declared_yard())
            if unknown := set(options["queue"]) - found.keys():
                named, known = ", ".join(sorted(unknown)), ", ".join(found)
                raise CommandError(f"check_backlog: no queue {named}; write one of {known}")
            chosen = [found[name] for name in options["queue"] or found]
            backlog = check_backlog(chosen, broker, declared_yard(), report=self._report)
        self.answer(_lines(backlog), _as_json(backlog), indent=2)
        if backlog.troubles:
            sys.exit(1)

    def _report(self, looked_at: int) -> None:
        if time.monotonic() - self._reported_s >= REPORT_EVERY_S:
            self._reported_s = time.monotonic()
            self.stderr.write(f"check_backlog: {looked_at:,} messages looked at")


def _lines(backlog: Backlog) -> Iterator[str]:
    for trouble in backlog.troubles.values():
        samples = f" (such as {', '.join(trouble.samples)})" if trouble.samples else ""
        yield printable(f"{trouble.queue}: {trouble.count:,} of {trouble.actor}: {trouble.detail}{samples}")
    actors = f"{counted(backlog.looked_at, 'message')} of {counted(len(backlog.by_actor), 'actor')} looked at"
    yield f"{actors}; this code {'cannot' if backlog.troubles else 'can'} run all of them"


def _as_json(backlog: Backlog) -> dict[str, Any]:
    of_actors = sorted(backlog.by_actor.items())
    return {
        "ok": not backlog.troubles,
        "looked_at": backlog.looked_at,
        "actors": [{"queue": queue, "actor": actor, "count": count} for (queue, actor), count in of_actors],
        "troubles": [asdict(trouble) for trouble in backlog.troubles.values()],
    }
