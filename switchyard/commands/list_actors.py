"""``manage.py switchyard actors``: list the actors, show one, send one, pause and resume one."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.core.management.base import CommandParser
from django.db import DatabaseError

from switchyard.actors import queries
from switchyard.audit.services import Who
from switchyard.broker.errors import BrokerError
from switchyard.console.commands import ActsCommand, as_command_error, table, wrong
from switchyard.console.formatting import counted, duration, parse_until, pause_facts
from switchyard.jobs import pauses
from switchyard.jobs.calls import checked, parameters_of, read_json, signature_text
from switchyard.jobs.services import send_for

HEADINGS = ("actor", "queue", "pools", "options", "where")
EXAMPLES = """examples:
  manage.py switchyard actors list
  manage.py switchyard actors show generate_report
  manage.py switchyard actors send generate_report --kwargs '{"customer_id": 7, "month": "2026-10"}'
  manage.py switchyard actors send generate_report --args '[7, "2026-10"]' --delay 60000 --tag audit
  manage.py switchyard actors pause generate_report --until 10m --reason "wrong rates"
  manage.py switchyard actors pause generate_report --argument customer_id=7    only the jobs of one customer
  manage.py switchyard actors resume generate_report --argument customer_id=7
  manage.py switchyard actors open charge --until 10m --reason "they are down for maintenance"    its circuit"""


class Command(ActsCommand):
    """List the actors, show one, send one, pause or resume one."""

    help = "List the actors; show, send, pause or resume one."
    examples, subject = EXAMPLES, "actors"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        add("list", help="every actor with its queue, options and place in the code")
        show = add("show", help="one actor: signature, options, figures and what is usual")
        send = add("send", help="enqueue one job; prints its id")
        stop = add("pause", help="start no job of one, in any queue; running ones continue")
        go_on = add("resume", help="start its jobs again, in the order of their queue")
        opened = add("open", help="open the circuit that one depends on; resume closes it")
        for each in (show, send, stop, go_on, opened):
            each.add_argument("name", metavar="NAME", help="name of the actor, see list")
        send.add_argument("--args", metavar="JSON", default="[]", dest="arguments", help="positional arguments: a list")
        send.add_argument("--kwargs", metavar="JSON", default="{}", dest="named", help="named arguments: an object")
        send.add_argument("--delay", metavar="MS", type=int, help="milliseconds until the job may start")
        text = "a tag; may be repeated"
        send.add_argument("--tag", metavar="TAG", action="append", default=[], dest="tags", help=text)
        for each in (stop, go_on, opened):
            text = "only jobs with this value of an argument: a JSON value, or the text of a parameter that takes one"
            each.add_argument("--argument", metavar="NAME=VALUE", default="", help=text)
            each.add_argument("--reason", default="", help="shown with the pause, and kept in the audit log")
        text = "resume by itself: in a span (10m, 2h), at a time of day (14:00 UTC) or at an ISO 8601 time"
        stop.add_argument("--until", metavar="T", default="", help=text)
        opened.add_argument("--until", metavar="T", required=True, help="one job probes it then; written as of a pause")

    def _list(self, options: dict[str, Any]) -> None:
        actors = queries.all_actors()
        none = "no actor; write one with @dramatiq.actor in actors.py of an installed app"
        self.answer(table(HEADINGS, map(_cells, actors)) or none, list(map(dataclasses.asdict, actors)), indent=2)

    def _show(self, options: dict[str, Any]) -> None:
        shown = _shown(options["name"])
        self.answer(_lines(shown), shown, indent=2)

    def _send(self, options: dict[str, Any]) -> None:
        name, actor = options["name"], queries.find_actor(options["name"])
        places, names = _value("--args", options["arguments"], list), _value("--kwargs", options["named"], dict)
        with as_command_error(f"actor {name}"):
            call, who = checked(actor, places, names), Who.of_command()
            job_id = send_for(actor, call, who=who, delay_ms=options["delay"], tags=options["tags"])
        self.answer(job_id, {"id": job_id}, indent=2)

    def _turn(self, options: dict[str, Any]) -> None:
        action, name, argument, reason = (options[key] for key in ("verb", "name", "argument", "reason"))
        until = options.get("until", "")
        wanted = pauses.chosen(queries.find_actor(name), argument)
        end = parse_until(until) if until else None
        if action == "pause":
            changed = pauses.pause(wanted, who=Who.of_command(), reason=reason, until=end)
            text = "paused: no job of it starts, running ones continue"
        elif action == "open":
            changed = pauses.open_circuit(wanted, who=Who.of_command(), reason=reason, until=end)
            text = "its circuit is open: no job that depends on the same starts in its queue"
        else:
            changed, text = pauses.resume(wanted, who=Who.of_command(), reason=reason), "resumed"
        text += "" if changed else " (as before)"
        then = "one job probes it" if action == "open" else "resumes by itself"
        text += f"; {then} at {end:%Y-%m-%d %H:%M:%S} UTC" if end is not None else ""
        body = {"actor": name, "argument": argument or None, "paused": action != "resume", "changed": changed}
        found = body | ({"until": end.isoformat()} if end is not None else {})
        self.answer(f"{name}{f' with {argument}' if argument else ''}: {text}", found)

    _pause = _resume = _open = _turn


def _value(option: str, text: str, kind: type) -> Any:
    try:
        value = read_json(text)
    except ValueError as error:
        raise wrong(f"{option}: {error}") from error
    if not isinstance(value, kind):
        example = '[7, "2026-10"]' if kind is list else '{"month": "2026-10"}'
        raise wrong(f"{option}: write a JSON {'list' if kind is list else 'object'}, such as {example}")
    return value


def _shown(name: str) -> dict[str, Any]:
    actor = queries.find_actor(name)
    facts = dataclasses.asdict(queries.facts_of(actor))
    names = ("name", "annotation", "required", "redacted")
    parameters = [{name: getattr(each, name) for name in names} for each in parameters_of(actor)]
    code: dict[str, Any] = {"signature": signature_text(actor), "parameters": parameters, "pauses": []}
    # None: the broker, or the database, does not answer.
    known: dict[str, Any] = {"facts": None, "usually": "", "history": None}
    with suppress(BrokerError):
        known["facts"] = {each.title: each.as_json() for each in queries.lately(name)}
        known["usually"] = queries.usual_text(name)
    with suppress(BrokerError):
        code["pauses"] = [f"{each.named}: {pause_facts(each)}" for each in pauses.paused_actors(name)]
    with suppress(DatabaseError):
        known["history"] = dataclasses.asdict(queries.of_actor(name))
    return {**facts, **code, **known}


def _lines(shown: dict[str, Any]) -> str:
    lines = [shown["signature"], *(f"  {line}".rstrip() for line in shown["docstring"].splitlines()), ""]
    lines.append(f"{'queue':12} {shown['queue']}, pools {', '.join(shown['pools']) or 'none'}")
    lines += [f"{'paused':12} {text}" for text in shown["pauses"]]
    lines.append(f"{'where':12} {shown['module']}, {shown['place']}")
    for option in shown["options"]:
        rule = f"   ({option['rule']})" if option["rule"] else ""
        lines.append(f"{'option':12} {option['name']}={option['text']}{rule}")
    lines += [f"{title.removeprefix('last '):12} {_attempts(one)}" for title, one in (shown["facts"] or {}).items()]
    lines += [f"{'usually':12} {shown['usually']}"] if shown["usually"] else []
    for group in (shown["history"] or {}).get("failures", ()):
        jobs = counted(group["jobs"], "job")
        lines.append(f"{'failure':12} {group['fingerprint']} {group['exception']}, {jobs} in the last day")
    return "\n".join(lines)


def _attempts(found: dict[str, Any]) -> str:
    ended = ", ".join(f"{count:,} {outcome}" for outcome, count in found["outcomes"].items()) or "no attempt"
    return ended + (f"; ran {duration(found['run_ms'][0])} at the median" if found["run_ms"] else "")


def _cells(actor: queries.ActorFacts) -> tuple[str, ...]:
    options = " ".join(f"{option.name}={option.text}" for option in actor.options)
    return actor.name, actor.queue, ",".join(actor.pools) or "none", options, actor.place
