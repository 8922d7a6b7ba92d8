"""``manage.py switchyard deadletters``: list, groups, show, requeue, discard, restore, note."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser

from switchyard.audit.services import Who
from switchyard.broker.errors import BrokerError
from switchyard.bulk import services as bulk
from switchyard.conf import declared_yard
from switchyard.console.commands import LIMIT, ActsCommand, wrong
from switchyard.console.formatting import counted
from switchyard.dead_letters import acts, bulk_moves, presentation, queries
from switchyard.dead_letters.acts import reconcile_all
from switchyard.dead_letters.models import DeadLetter
from switchyard.middleware.logs import printable

EXAMPLES = """examples:
  manage.py switchyard deadletters list --limit 20
  manage.py switchyard deadletters groups                              causes of the open ones, the largest first
  manage.py switchyard deadletters show 0f8fad5b-d9cb-469f-a165-70867728950e      its traceback and history
  manage.py switchyard deadletters requeue --group 1f2e3d4c5b6a                   all of one cause, once it is fixed
  manage.py switchyard deadletters requeue --group 1f2e3d4c5b6a --since 1h        only those that died lately
  manage.py switchyard deadletters requeue --group 1f2e3d4c5b6a --canary          a rollout: 1, then 10, then all
  manage.py switchyard deadletters discard 0f8fad5b-d9cb-469f-a165-70867728950e --reason 'the customer is gone'
  manage.py switchyard deadletters restore 0f8fad5b-d9cb-469f-a165-70867728950e   within 90 days
  manage.py switchyard deadletters restore --group 1f2e3d4c5b6a                   all discarded ones of one cause
  manage.py switchyard deadletters note 0f8fad5b-d9cb-469f-a165-70867728950e 'waits for the new rates'"""


class Command(ActsCommand):
    """Triage dead letters. Exits 1 if an id or group is unknown or a letter was not moved; stderr names each."""

    help = "List, group, show, requeue, discard and restore dead letters, and note on them."
    examples, subject = EXAMPLES, "dead letters"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        listing = add("list", help="open dead letters, newest first")
        listing.add_argument("--queue", choices=[queue.name for queue in declared_yard().queues], default="")
        listing.add_argument("--group", metavar="FP", default="", help="only this fingerprint")
        text = "letters in this state instead of the open ones"
        listing.add_argument("--state", choices=DeadLetter.State.values, default="", help=text)
        listing.add_argument("--limit", type=LIMIT, default=100, metavar="N", help="at most N letters (default: 100)")
        listing.add_argument("--quarantined", action="store_true", help="messages that could not be decoded")
        groups = add("groups", help="open dead letters by cause, the largest group first")
        groups.add_argument("--limit", type=LIMIT, default=20, metavar="N", help="at most N groups (default: 20)")
        show = add("show", help="one dead letter with its traceback")
        show.add_argument("id", metavar="ID")
        moves: dict[str, CommandParser] = {}
        for verb, state, text in (
            ("requeue", "open", "send back to their queues, by id or by group"),
            ("discard", "open", "delete from the broker, by id or by group"),
            ("restore", "discarded", "put discarded letters back into their dead lists, for 90 days"),
        ):
            move = moves[verb] = add(verb, help=text)
            move.add_argument("ids", nargs="*", metavar="ID")
            move.add_argument("--group", metavar="FP", default="", help=f"all {state} letters of this fingerprint")
            move.add_argument("--reason", default="", help="reason to note in the history")
            if verb == "restore":
                move.set_defaults(quarantined=False, since="", until="", canary=None)
            else:
                text = "open letters that died since then: 1h ago, or a time such as 2026-11-21T12:00 (UTC)"
                move.add_argument("--since", metavar="T", default="", help=text)
                move.add_argument("--until", metavar="T", default="", help="as --since; the time itself is left out")
                move.add_argument("--quarantined", action="store_true", help="the ids are of quarantined messages")
        text = "as a rollout: N first (without N 1, then 10), then the others; a failure of the first ones stops it"
        requeue = moves["requeue"]
        requeue.add_argument("--canary", type=int, nargs="?", const=0, metavar="N", help=text)
        requeue.add_argument("--rate", type=int, metavar="N", help="of a rollout: at most so many letters a second")
        text = "of a rollout: stop when more of the others fail (default: 10)"
        requeue.add_argument("--stop-percent", type=int, metavar="P", help=text)
        moves["discard"].set_defaults(canary=None)
        note = add("note", help="append a note to a letter's history")
        note.add_argument("id", metavar="ID")
        note.add_argument("text", metavar="TEXT", help="at most 500 characters")

    def _list(self, options: dict[str, Any]) -> None:
        limit = options["limit"]
        if options["quarantined"]:
            items = queries.unreadable(queue=options["queue"], limit=limit)
            shown = list(map(presentation.unreadable_summary, items))
            self.answer(presentation.unreadable_text(items), shown, indent=2)
            return
        self._catch_up()
        states = (options["state"],) if options["state"] else ()
        found = queries.listing(queue=options["queue"], fingerprint=options["group"], states=states)[: limit + 1]
        rows = list(found)[:limit]
        lines = [presentation.letters_text(rows)]
        if len(found) > limit:
            text = "--limit N for more; manage.py switchyard deadletters groups counts by cause"
            lines.append(f"more than {limit:,}: {text}")
        self.answer(lines, list(map(presentation.summary, rows)), indent=2)

    def _groups(self, options: dict[str, Any]) -> None:
        limit = options["limit"]
        self._catch_up()
        found = queries.groups(limit=limit)
        lines = [presentation.groups_text(found)]
        if (left := queries.group_count() - len(found)) > 0:
            lines.append(f"{left:,} more: --limit N for more")
        self.answer(lines, list(map(presentation.group_summary, found)), indent=2)

    def _show(self, options: dict[str, Any]) -> None:
        row = queries.find(options["id"])
        self.answer(presentation.letter_text(row), presentation.detail(row), indent=2)

    def _move(self, options: dict[str, Any]) -> None:
        verb, group, ids = options["verb"], options["group"], list(dict.fromkeys(options["ids"]))
        who, reason, rolls_out = Who.of_command(), options["reason"], options["canary"] is not None
        times = {"died_since": options["since"], "died_until": options["until"]}
        many = bool(group or any(times.values()))
        if bool(ids) == many or (options["quarantined"] and many):
            choice = "name ids, or one group with --group FP, or a time with --since and --until, or both of these"
            raise wrong(f"{verb}: {choice}; quarantined messages have neither")
        if (rolls_out and not many) or (not rolls_out and (options.get("rate") or options.get("stop_percent"))):
            raise wrong("requeue: --canary takes --group FP, or a time; --rate and --stop-percent take --canary")
        left = 0
        if options["quarantined"]:
            outcome = acts.move_quarantined(verb, ids, who=who, reason=reason)
        elif many and verb != "restore":
            try:
                wanted = bulk_moves.check({"fingerprint": group, **times})
            except ValueError as error:
                raise wrong(f"{verb}: {error}") from error
            self._catch_up()
            if rolls_out:
                self._roll_out(wanted, who, options)
                return
            found = bulk_moves.matching(wanted)
            ids = list(found.values_list("message_id", flat=True)[: acts.MOST_AT_ONCE])
            if not ids and any(times.values()):
                raise CommandError(f"{verb}: no open letter matches; see manage.py switchyard deadletters list")
            outcome = acts.apply(verb, ids, who=who, reason=reason, group=group)
            left = found.count()
        else:
            if group:
                rows = DeadLetter.objects.filter(fingerprint=group, state=DeadLetter.State.DISCARDED)
                ids = list(rows.order_by("died_at", "id").values_list("message_id", flat=True))
            if not ids:
                raise CommandError(f"group {group}: it has no discarded letter; nothing was restored")
            outcome = acts.apply(verb, ids, who=who, reason=reason)
        past = {"requeue": "Requeued", "discard": "Discarded", "restore": "Restored"}[verb]
        more = f"; {left} of these are open: died meanwhile, or beyond one run" if left else ""
        moved = counted(len(outcome.done), "quarantined message" if options["quarantined"] else "dead letter")
        self.answer(f"{past} {moved}{more}.", asdict(outcome) | {"left": left}, indent=2)
        for text in (*outcome.skipped, *filter(None, [outcome.stopped])):
            self.stderr.write(printable(text))
        if outcome.skipped or outcome.stopped:
            raise SystemExit(1)

    _requeue = _discard = _restore = _move

    def _roll_out(self, wanted: dict[str, str], who: Who, options: dict[str, Any]) -> None:
        plan = {"canary": options["canary"] or None, "stop_percent": options["stop_percent"]}
        given = {name: number for name, number in plan.items() if number is not None}
        reason, rate = options["reason"], options["rate"]
        try:
            row = bulk.start("letter.canary", wanted, who=who, reason=reason, rate=rate, plan=given)
        except ValueError as error:
            raise wrong(f"requeue: {error}") from error
        first = given.get("canary") or "1, then 10"
        text = f"bulk act {row.pk} requeues {first}, then all of {row.total:,}: manage.py switchyard bulk show {row.pk}"
        self.answer(text, {"bulk_act": row.pk, "filter": row.filter, "total": row.total})

    def _note(self, options: dict[str, Any]) -> None:
        done, sentence = acts.note(options["id"], who=Who.of_command(), text=options["text"])
        if not done:
            raise CommandError(sentence)
        self.answer(sentence, {"id": options["id"], "noted": True}, indent=2)

    def _catch_up(self) -> None:
        try:
            reconcile_all()
        except BrokerError as error:
            self.stderr.write(f"The list may be out of date: {error}")
