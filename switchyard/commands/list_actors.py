"""``manage.py switchyard actors``: list the actors, show one, send one."""

from __future__ import annotations

import dataclasses
import json
from argparse import SUPPRESS
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError
from dramatiq.actor import Actor
from dramatiq.middleware import MiddlewareError

from switchyard.actors import figures, queries
from switchyard.audit.services import Who, act
from switchyard.broker.errors import BrokerError, NotFound, SwitchyardError
from switchyard.console.commands import WRONG_ARGUMENTS, ActionParser, PrintingCommand, as_command_error, show_examples
from switchyard.console.formatting import aligned, duration
from switchyard.jobs.calls import VARIADIC, checked, parameters_of, read_json, signature_text

HEADINGS = ("actor", "queue", "pools", "options", "where")
EXAMPLES = """examples:
  manage.py switchyard actors list
  manage.py switchyard actors show generate_report
  manage.py switchyard actors send generate_report --kwargs '{"customer_id": 7, "month": "2026-10"}'
  manage.py switchyard actors send generate_report --args '[7, "2026-10"]' --delay 60000 --tag audit"""


class Command(PrintingCommand):
    """List the actors, show one, or send one."""

    help = "List the actors, show one, or send one."

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)
        actions = parser.add_subparsers(dest="action", required=True, parser_class=ActionParser)
        listing = actions.add_parser("list", help="every actor with its queue, options and place in the code")
        show = actions.add_parser("show", help="one actor: signature, options, figures of this machine")
        send = actions.add_parser("send", help="enqueue one job; prints its id")
        for each in (show, send):
            each.add_argument("name", metavar="NAME", help="name of the actor, see list")
        send.add_argument("bare", nargs="*", help=SUPPRESS)  # refused with what to write
        send.add_argument("--args", metavar="JSON", default="[]", dest="arguments", help="positional arguments: a list")
        send.add_argument("--kwargs", metavar="JSON", default="{}", dest="named", help="named arguments: an object")
        send.add_argument("--delay", metavar="MS", type=int, help="milliseconds until the job may start")
        send.add_argument(
            "--tag", metavar="TAG", action="append", default=[], dest="tags", help="a tag; may be repeated"
        )
        for each in (listing, show, send):
            each.add_argument("--json", action="store_true", dest="as_json", help="print JSON")

    def handle(self, *args: Any, action: str, as_json: bool, **options: Any) -> None:
        if action == "list":
            actors = queries.all_actors()
            self.stdout.write(_json([dataclasses.asdict(each) for each in actors]) if as_json else _table(actors))
            return
        try:
            if action == "show":
                shown = _shown(options["name"])
                self.stdout.write(_json(shown) if as_json else _lines(shown))
            else:
                job_id = self._send(**options)
                self.stdout.write(_json({"id": job_id}) if as_json else job_id)
        except NotFound as error:
            raise CommandError(str(error)) from error

    def _send(
        self,
        *,
        name: str,
        bare: list[str],
        arguments: str,
        named: str,
        delay: int | None,
        tags: list[str],
        **options: Any,
    ) -> str:
        actor = queries.find_actor(name)
        if bare:
            raise CommandError(f"actor {name}: its arguments are JSON; {_form_of(actor)}", returncode=WRONG_ARGUMENTS)
        places = _value("--args", arguments, list)
        names = _value("--kwargs", named, dict)
        with as_command_error(f"actor {name}"):
            try:
                call = checked(actor, places, names)
                with act("job.send", who=Who.of_command(), target=name) as entry:
                    job_id = queries.send(actor, call, delay_ms=delay, tags=tags)
                    entry.count, entry.detail = 1, {"job": job_id, "queue": actor.queue_name}
            except BrokerError:
                raise
            except (SwitchyardError, MiddlewareError) as error:
                raise CommandError(str(error)) from error
        return job_id


def _form_of(actor: Actor[..., Any]) -> str:
    parameters = parameters_of(actor)
    named = ", ".join(f'"{each.name}": ...' for each in parameters if each.kind not in VARIADIC)
    forms = [*([f"--kwargs '{{{named}}}'"] if named else []), "--args '[...]'"]
    return f"write {', or '.join(forms)}" if parameters else "it takes none"


def _value(option: str, text: str, kind: type) -> Any:
    try:
        value = read_json(text)
    except ValueError as error:
        raise CommandError(f"{option}: {error}") from error
    if not isinstance(value, kind):
        example = '[7, "2026-10"]' if kind is list else '{"month": "2026-10"}'
        raise CommandError(f"{option}: write a JSON {'list' if kind is list else 'object'}, such as {example}")
    return value


def _shown(name: str) -> dict[str, Any]:
    actor = queries.find_actor(name)
    facts = dataclasses.asdict(queries.facts_of(actor))
    parameters = [
        {"name": each.name, "annotation": each.annotation, "required": each.required, "redacted": each.redacted}
        for each in parameters_of(actor)
    ]
    machine = dataclasses.asdict(figures.of_this_machine(name))
    try:
        ended: dict[str, Any] | None = dataclasses.asdict(figures.of_actor(name))
    except DatabaseError:
        ended = None
    code = {"signature": signature_text(actor), "parameters": parameters}
    return {**facts, **code, "this_machine": machine, "history": ended}


def _lines(shown: dict[str, Any]) -> str:
    lines = [shown["signature"], *(f"  {line}".rstrip() for line in shown["docstring"].splitlines()), ""]
    lines.append(f"{'queue':12} {shown['queue']}, pools {', '.join(shown['pools']) or 'none'}")
    lines.append(f"{'where':12} {shown['module']}, {shown['place']}")
    for option in shown["options"]:
        rule = f"   ({option['rule']})" if option["rule"] else ""
        lines.append(f"{'option':12} {option['name']}={option['value']}{rule}")
    ended = ", ".join(f"{count:,} {outcome}" for outcome, count in shown["this_machine"]["outcomes"])
    lines.append(f"{'here':12} {ended or 'no attempt'} (workers of this machine, since their metrics were emptied)")
    for title in ("hour", "day"):
        lines.append(f"{'last ' + title:12} {_counted(shown['history'] and shown['history'][title])} (history)")
    for group in (shown["history"] or {}).get("failures", ()):
        jobs = f"{group['jobs']:,} job{'' if group['jobs'] == 1 else 's'}"
        lines.append(f"{'failure':12} {group['fingerprint']} {group['exception']}, {jobs} in the last day")
    return "\n".join(lines)


def _counted(count: dict[str, Any] | None) -> str:
    if count is None:
        return "unknown, the database does not answer"
    ended = ", ".join(f"{jobs:,} {state}" for state, jobs in count["outcomes"]) or "no job ended"
    ran = f"; ran {duration(count['run_ms'][0])} at the median" if count["run_ms"] else ""
    cut = f"; its newest jobs, over {duration(count['span_ms'])}" if count["cut"] else ""
    return f"{ended}{ran}{cut}"


def _table(actors: list[queries.ActorFacts]) -> str:
    if not actors:
        return "no actor; write one with @dramatiq.actor in actors.py of an installed app"
    return aligned([HEADINGS, *(_cells(each) for each in actors)])


def _cells(actor: queries.ActorFacts) -> tuple[str, ...]:
    options = " ".join(f"{option.name}={option.value}" for option in actor.options)
    return actor.name, actor.queue, ",".join(actor.pools) or "none", options or "-", actor.place


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)
