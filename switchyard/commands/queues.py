"""``manage.py switchyard queues``: list queues, pause, resume, purge, relocate and import messages."""

import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from typing import Any, TextIO, cast

import dramatiq
import msgspec
from django.core.management.base import CommandError, CommandParser
from rich.console import Console

from switchyard.audit.services import Who, write_note
from switchyard.broker.admin.browse import family_stats
from switchyard.broker.admin.limits import KeyState, LimitState
from switchyard.broker.admin.purge import purges
from switchyard.broker.clock import datetime_of
from switchyard.broker.keys import LANES
from switchyard.commands.status import Cells, fitted_table
from switchyard.conf import declared_yard
from switchyard.console.commands import ActsCommand, table, wrong
from switchyard.console.formatting import ago, counted, duration, parse_until, pause_facts, promise
from switchyard.middleware.logs import printable
from switchyard.operations import queries
from switchyard.operations.findings.facts import facts_of
from switchyard.operations.overview import judged_now, shown_rows
from switchyard.queues import services, stock
from switchyard.queues.queries import QueueView, all_queues_sentence, waiting_and_scheduled, yard_state
from switchyard.queues.stock import Imported

# Heading -> figure. Workers hold more than they run: the messages that they prefetched, too.
COUNTED = {"waiting": "depth", "scheduled": "scheduled", "parked": "parked", "at workers": "running"}
COUNTED |= {name: name for name in ("retrying", "dead", "quarantined")}
# Each column with the width of the terminal from which it is shown.
COLUMNS = {"queue": 0, "waiting": 0, "scheduled": 60, "parked": 98, "at workers": 90, "retrying": 50, "dead": 0}
COLUMNS |= {"quarantined": 112, "oldest": 40, "promise": 140, "busy/slots": 70}
FIGURES = COLUMNS.keys() - {"queue", "promise"}
LIMITS = ("id", "limit", "taken", "waiting", "next waits since", "how long still")
VALUES = ("taken", "waiting", "next job", "it waits since", "how long still")
CIRCUITS = ("circuit", "queue", "state", "waiting", "opened", "next probe", "why", "actor")
REFUSALS_SHOWN = 5


def status_lines(view: QueueView) -> list[str]:
    """Return the sentences of a queue's page, and those of the overview about the queue, one a line."""
    lines = [f"{view.queue.name}: {view.row.state.word.lower()}; {view.row.promise}", view.lead]
    if view.holders and view.holding:
        lines.append(f"{view.holders[0].actor} {view.holding}.")
    if view.held_back:
        lines.append(f"Scheduled: {view.held_back}.")
    for purge in view.purges:
        lines.append(f"{purge['sentence']} {purge['end']}")
    if view.pause is not None:
        lines.append(str(view.pause))
    lines += [f"{each.named}: {pause_facts(each)}" for each in view.paused_actors]
    if view.stats is not None:
        stats = view.stats
        lines.append(f"{view.row.held:,} scheduled, {stats.retry.total:,} retrying, {stats.dead:,} dead.")
    if view.node:
        lines.append(f"It is on node {view.node}.")
    state = yard_state()
    for found in judged_now(facts_of(state)) if state is not None else ():
        if view.queue.name in (found.finding.subject, *found.finding.also):
            lines += [found.sentence, *([f"Then: {found.finding.then}"] if found.finding.then else [])]
            lines += [f"Next: {found.finding.next}"] if found.finding.next else []
    return lines


def _cells(row: dict[str, Any]) -> Cells:
    queue, age_s = declared_yard().queue_of(row["queue"]), row["oldest_age_seconds"]
    late = age_s is not None and queue.objective_ms is not None and age_s * 1_000 > queue.objective_ms
    return (
        queue.name + _paused(row),
        *(f"{row[name]:,}" for name in COUNTED.values()),
        ("" if age_s is None else duration(age_s * 1_000), "bad" if late else ""),
        promise(queue.objective_ms, queue.done_objective_ms),
        f"{row['slots_busy']}/{row['slots']}" if row["pools_up"] else "no pool",
    )


def _paused(row: dict[str, Any]) -> str:
    until = row["pause"] and row["pause"]["until"]
    end = f" until {datetime.fromisoformat(until):%H:%M:%S} UTC" if until else ""
    return f" (paused{end})" if row["paused"] else ""


def import_lines(found: Imported) -> list[str]:
    lines = [f"{found.queue}: {counted(found.moved, 'message')} imported"]
    if found.unreadable:
        lines.append(f"{found.queue}: {found.unreadable:,} are not messages of Dramatiq; they stay on its server")
    lines += [f"{found.queue}: refused, it stays where it is: {refusal}" for refusal in found.refused[:REFUSALS_SHOWN]]
    if (more := len(found.refused) - REFUSALS_SHOWN) > 0:
        lines.append(f"{found.queue}: {more:,} more were refused")
    if found.cut:
        lines.append(
            f"{found.queue}: messages that wait behind these were not reached: "
            "mend the refused ones or take them out, and run this again"
        )
    held = (found.left or 0) - found.unreadable - len(found.refused)
    if held > 0:
        lines.append(
            f"{found.queue}: workers of stock Dramatiq hold {held:,}, or one that was killed held them: "
            "stop all of them, and run this again after a minute"
        )
    return lines


EXAMPLES = """examples:
  manage.py switchyard queues                                        list every queue
  manage.py switchyard queues status slow                            what waits, who holds its slots, what helps
  manage.py switchyard queues pause slow --until 2h --reason "disk is full"  start nothing of slow; what runs continues
  manage.py switchyard queues resume slow default                    several at once, one after the other
  manage.py switchyard queues purge slow --yes --reason "sent twice"  drop what waits; running messages continue
  manage.py switchyard queues purge slow --undo                      within a minute: put it back
  manage.py switchyard queues relocate render_report --from default --to slow
  manage.py switchyard queues limits                                 what waits for which limit or circuit
  manage.py switchyard queues limits work:concurrency:sync:customer_id      by value of its argument
  manage.py switchyard queues override work:concurrency:sync:customer_id 2 --until 1h --reason "their server is slow"
  manage.py switchyard queues import redis://old:6379/0           what stock Dramatiq left in queues of these names"""


class Command(ActsCommand):
    """List and operate queues. Exit 1: the broker does not answer, or the queue does not exist."""

    help = "List every queue; say how one is; pause or resume one; move an actor's waiting messages to another."
    examples, subject, without = EXAMPLES, "queues", "list"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        for act, text in (("pause", "start nothing; running messages continue"), ("resume", "start messages again")):
            turn = add(act, help=text)
            turn.add_argument("queues", metavar="QUEUE", nargs="+")
            if act == "pause":
                text = "resume by itself: in a span (30m, 2h), at a time of day (14:00 UTC) or at an ISO 8601 time"
                turn.add_argument("--until", metavar="T", default="", help=text)
            turn.add_argument("--reason", default="", help="shown with the pause, and kept in the audit log")
        note = add("note", help="write a note on a queue, for the next shift")
        note.add_argument("queue", metavar="QUEUE")
        note.add_argument("text", metavar="TEXT", help="at most 500 characters")
        drop = add("purge", help="drop what waits and what is scheduled; undone within a minute by --undo")
        drop.add_argument("queue", metavar="QUEUE")
        drop.add_argument("--yes", action="store_true", help="do it; without it the command only counts")
        drop.add_argument("--undo", action="store_true", help="put back what purges of the last minute set aside")
        drop.add_argument("--reason", default="", help="kept in the audit log")
        status = add("status", help="say what its page says: what waits, who holds its slots, what helps")
        status.add_argument("queue", metavar="QUEUE")
        limit = add("limits", help="list limits and circuits with what waits for them, or a limit's values")
        limit.add_argument("limit", metavar="LIMIT", nargs="?", default="", help="id of one, as the list prints it")
        limit.add_argument("--value", default="", help="begin at this value; of a rate, show it")
        limit.add_argument("--after", default="", help="value printed by the previous page")
        other = add("override", help="let another number count for a limit until a time")
        other.add_argument("limit", metavar="LIMIT", help="its id, as queues limits prints it")
        other.add_argument("n", metavar="N", type=int, nargs="?", help="the number; left out: end the override")
        other.add_argument("--until", metavar="T", default="", help="its end, written as that of a pause")
        other.add_argument("--reason", default="", help="shown with the limit, and kept in the audit log")
        move = add("relocate", help="move an actor's waiting messages to another queue")
        text = "name of the actor, as manage.py switchyard actors list prints it"
        move.add_argument("actor", metavar="ACTOR", help=text)
        move.add_argument("--from", dest="source", metavar="QUEUE", required=True, help="where its messages wait")
        move.add_argument("--to", dest="target", metavar="QUEUE", required=True, help="where they go")
        move.add_argument("--reason", default="", help="kept in the audit log")
        take = add("import", help="move what stock Dramatiq left into queues of the same names")
        take.add_argument("url", metavar="URL", help=f"its server: {stock.known_addresses()}")
        take.add_argument("queues", metavar="QUEUE", nargs="*", help="only these queues")
        take.add_argument("--namespace", default="dramatiq", help="of its keys on Redis (default dramatiq)")

    def _note(self, options: dict[str, Any]) -> None:
        [queue] = _known([options["queue"]])
        write_note("queue", queue, options["text"], who=Who.of_command())
        self.answer(f"Noted on {queue}.", {"queue": queue, "noted": True})

    def _turn(self, options: dict[str, Any]) -> None:
        """Pause or resume queues, and say of each what it came to as soon as it is known."""
        pauses, given = options["verb"] == "pause", options.get("until", "")
        until = parse_until(given) if given else None
        turn = partial(services.pause, until=until) if pauses else services.resume
        text = "paused: nothing starts, running messages continue" if pauses else "resumed"
        end = {} if until is None else {"until": until.isoformat()}
        end_text = "" if until is None else f"; resumes by itself at {until:%Y-%m-%d %H:%M:%S} UTC"
        found: list[dict[str, Any]] = []
        for queue in _known(options["queues"]):
            changed = turn(queue, who=Who.of_command(), reason=options["reason"])
            found.append({"queue": queue, "paused": pauses, "changed": changed, **end})
            if not self.as_json:
                self.stdout.write(f"{queue}: {text}{'' if changed else ' (as before)'}{end_text}")
        # One queue is an object, as it was before the command took several.
        self.answer("", found[0] if len(found) == 1 else found)

    _pause = _resume = _turn

    def _limits(self, options: dict[str, Any]) -> None:
        found: Any
        tables: list[tuple[Sequence[str], Iterable[Sequence[str]]]]
        if options["limit"]:
            found = services.keys_of(services.find(options["limit"]), value=options["value"], after=options["after"])
            tables = [((name, *VALUES), map(_value_cells, getattr(found, name))) for name in ("largest", "keys")]
        else:
            states, circuits = services.limits_now(arguments=True)
            found = {"limits": states, "circuits": circuits}
            tables = [(LIMITS, map(_limit_cells, states)), (CIRCUITS, map(_circuit_cells, circuits))]
        texts = [text for titles, rows in tables if (text := table(titles, rows))]
        texts += [f"more: --after {shlex.quote(after)}"] if (after := getattr(found, "after", "")) else []
        self.answer("\n\n".join(texts) or "none is declared, and nothing waits", msgspec.to_builtins(found), indent=2)

    def _override(self, options: dict[str, Any]) -> None:
        if options["n"] is not None and not options["until"]:
            raise wrong("queues: an override has an end; write --until 30m, --until 14:00 (UTC) or ISO 8601")
        until = None if options["n"] is None else parse_until(options["until"])
        who, reason = Who.of_command(), options["reason"]
        state = services.override(options["limit"], options["n"], until=until, who=who, reason=reason)
        end = f" until {until:%Y-%m-%d %H:%M:%S} UTC, then {state.declared:,} again" if until else ", as declared"
        self.answer(f"{state.id}: {state.current:,}{end}", msgspec.to_builtins(state))

    def _purge(self, options: dict[str, Any]) -> None:
        if options["undo"]:
            self._undo_purges(options)
            return
        queue = options["queue"]
        family = services.family_of(queue)
        if not options["yes"]:
            count = waiting_and_scheduled(family_stats(family.calls, family.keys))
            raise CommandError(f"queues: purge would drop {count:,} messages of {queue}; write --yes")
        done = services.purge(queue, who=Who.of_command(), reason=options["reason"])
        text, count, until = f"{queue}: nothing waits and nothing is scheduled", 0, None
        if done is not None:
            count, until = done.count, datetime_of(done.until)
            text = (
                f"{queue}: {count:,} messages are set aside; the scheduler drops them after {until:%H:%M:%S} UTC. "
                f"Until then: manage.py switchyard queues purge {queue} --undo"
            )
        ends = until and until.isoformat()
        self.answer(text, {"queue": queue, "purged": count, "purge": done and done.id, "undo_until": ends})

    def _undo_purges(self, options: dict[str, Any]) -> None:
        queue = options["queue"]
        ids = [purge.id for purge in purges(services.family_of(queue)) if purge.claim != "drop"]
        if not ids:
            raise CommandError(f"queues: {queue} has no purge that can be undone; it can for a minute")
        undone = [services.undo_purge(queue, purge_id, who=Who.of_command()) for purge_id in ids]
        put_back, left_out = sum(each.put_back for each in undone), sum(each.left_out for each in undone)
        lines = [f"{queue}: {put_back:,} messages are put back, before those that were sent since"]
        lines += [f"{queue}: {services.LEFT_OUT.format(left_out)}"] if left_out else []
        self.answer(lines, {"queue": queue, "put_back": put_back, "left_out": left_out, "purges": ids})

    def _relocate(self, options: dict[str, Any]) -> None:
        actor, source, target = options["actor"], options["source"], options["target"]
        moved: dict[str, int] = dict.fromkeys(LANES, 0)
        steps = services.relocate_actor(actor, source, target, who=Who.of_command(), reason=options["reason"])
        for lane, step in steps:
            moved[lane] = step.moved
            if not self.as_json:
                self.stdout.write(f"{lane}: {step.looked_at:,} of {step.waiting:,} looked at, {step.moved:,} moved")
        text = f"{actor}: what waited in {source} waits in {target}; declare the actor there as well"
        if not any(moved.values()):
            known = dramatiq.get_broker().actors
            near = get_close_matches(actor, known, n=1) if actor not in known else []
            remedy = f"did you mean {near[0]}?" if near else f"see manage.py switchyard jobs list --queue {source}"
            text = f"{printable(actor)}: nothing of it waited in {source}; {remedy}"
        self.answer(text, {"actor": actor, "from": source, "to": target, "moved": moved})

    def _import(self, options: dict[str, Any]) -> None:
        names = options["queues"] or [queue.name for queue in declared_yard().queues]
        source = stock.stock_queues(options["url"], namespace=options["namespace"])
        found = [stock.import_queue(source, name, who=Who.of_command()) for name in names]
        for line in stock.leftover_lines(source):
            self.stderr.write(printable(line))
        lines = (printable(line) for queue in found for line in import_lines(queue))
        self.answer(lines, list(map(asdict, found)))

    def _list(self, options: dict[str, Any]) -> None:
        state = queries.yard_state()
        if self.as_json:  # rates are those between two readings
            time.sleep(queries.SHORTEST_S)
            state = queries.yard_state()
        facts, shown = facts_of(state), queries.queues_json(state)
        # The first sentence of the page of queues, and those of the overview about broker, pools and queues. A program
        # that reads the table or the JSON gets nothing else.
        rows = [row for row in shown_rows(facts) if row.kind == "queue"]
        self.stderr.write(f"queues: {printable(all_queues_sentence(rows, away=False))}.")
        for found in judged_now(facts):
            step = f" Next: {found.finding.next}" if found.finding.next else ""
            self.stderr.write(printable(f"queues: {found.finding.severity}: {found.sentence}{step}"))
        if not self.as_json:
            width = None if self.stdout.isatty() else 160
            console = Console(file=cast(TextIO, self.stdout), width=width, highlight=False)
            console.print(fitted_table(COLUMNS, console.width, map(_cells, shown), numbers=FIGURES))
        self.answer("", shown, indent=2)

    def _status(self, options: dict[str, Any]) -> None:
        queue = declared_yard().queue_of(options["queue"])
        lines = status_lines(QueueView(queue))
        self.answer(map(printable, lines), {"queue": queue.name, "sentences": lines}, indent=2)


def _known(names: list[str]) -> list[str]:
    """Return each name once; a name that the topology does not have is refused before anything is done."""
    return [declared_yard().queue_of(name).name for name in dict.fromkeys(names)]


def _limit_cells(one: LimitState) -> tuple[str, ...]:
    taken = "by value" if one.taken is None else f"{one.taken:,}" + ("" if one.argument else f" of {one.current:,}")
    if one.keys is not None:
        taken = f"{one.keys:,} values wait"
    waiting = "by value" if one.waiting is None else f"{one.waiting:,}"
    text = f"{one.actor} {services.text_of(one)}".strip()
    text += f", {one.current:,} until {one.until:%Y-%m-%d %H:%M:%S} UTC by {one.by}" if one.until else ""
    return one.id, text, taken, waiting, ago(one.since) if one.since else "", services.still_text(one)


def _value_cells(one: KeyState) -> tuple[str, ...]:
    since = ago(one.since) if one.since else ""
    return one.value, f"{one.taken:,}", f"{one.waiting:,}", one.next_job, since, services.still_text(one)


def _circuit_cells(one: services.CircuitState) -> tuple[str, ...]:
    of = f"{one.argument}={one.value}" if one.value else one.argument and f"by {one.argument}"
    probe = ago(one.next_probe_at) if one.next_probe_at else "the next job" if one.probe == "*" else one.probe
    why = f"{one.by}: {one.reason}" if one.by else one.reason
    opened = ago(one.opened_at) if one.opened_at else ""
    return f"{one.dependency} {of}".strip(), one.queue, one.state, f"{one.waiting:,}", opened, probe, why, one.actors[0]
