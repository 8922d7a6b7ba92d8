"""``manage.py switchyard alerts``: list, show, acknowledge, silence, unsilence, resolve; channels, test."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import starmap
from typing import Any

from django.core.management.base import CommandError, CommandParser

from switchyard.alerts import acts, notice
from switchyard.alerts.channels import ChannelFailed, channels
from switchyard.alerts.models import Alert, Delivery, Silence
from switchyard.alerts.notice import UNRESOLVED, alert_json, end_of, fields_json
from switchyard.alerts.views import channel_rows
from switchyard.audit.services import Who, note_line, notes_on, write_note
from switchyard.broker.errors import ActRefused
from switchyard.console.commands import LIMIT, ActsCommand, listed_number, wrong
from switchyard.console.formatting import counted, duration
from switchyard.console.links import runbook_of_alert
from switchyard.middleware.logs import printable

SILENCE = ("fingerprint", "until", "reason", "created_by", "created_at", "ended_by", "ended_at")


def alert_line(alert: Alert) -> str:
    times = "" if alert.count == 1 else f" ({alert.count:,} times)"
    last = f"{alert.last_at:%Y-%m-%d %H:%M:%S} UTC"
    return printable(f"{alert.pk:>6}  {alert.state:12}  {alert.severity:8}  {last}  {alert.title}{times}")


def alert_text(alert: Alert, deliveries: Sequence[Delivery]) -> str:
    """Return an alert with its messages, one fact a line."""
    pairs = [(name, value) for name, value in alert_json(alert).items() if value not in ("", None)]
    lines = [printable(f"{name:16} {value}") for name, value in pairs]
    lines.append(f"{'steps':16} {runbook_of_alert(alert.kind)}")
    lines += ["", *(printable(line) for line in alert.sample.splitlines())]
    for delivery in deliveries:
        sent = f" {delivery.sent_at:%Y-%m-%d %H:%M:%S} UTC" if delivery.sent_at else ""
        error = f": {delivery.error}" if delivery.error else ""
        lines.append(printable(f"{delivery.channel}: {delivery.state}{sent}, {delivery.count:,} times{error}"))
    return "\n".join(lines)


def silence_json(silence: Silence) -> dict[str, Any]:
    """Return a silence as JSON; an empty fingerprint stands for every alert."""
    return {"id": silence.pk} | fields_json(silence, SILENCE)


def silence_line(silence: Silence, named: str) -> str:
    until = f"until {silence.until:%Y-%m-%d %H:%M} UTC"
    return printable(f"silence {silence.pk}: {named}, {until}, by {silence.created_by}: {silence.reason}")


EXAMPLES = """examples:
  manage.py switchyard alerts list                                   unresolved alerts, and silences in force
  manage.py switchyard alerts acknowledge 2041 2042
  manage.py switchyard alerts note 2041 'the provider knows, ticket 88'
  manage.py switchyard alerts silence f00dfacef00dface --for 4h --reason 'the provider is slow on Fridays'
  manage.py switchyard alerts silence 2041 --for 1h --reason known   all of that alert's cause
  manage.py switchyard alerts silence --all --for 30m --reason 'maintenance of the database'
  manage.py switchyard alerts unsilence 17
  manage.py switchyard alerts channels                               each with its number and its last message
  manage.py switchyard alerts test 2                                 send the second of them a message"""

# Of a cause, in hexadecimal digits; a number that is shorter is an alert's id.
FINGERPRINT_LENGTH = 16


class Command(ActsCommand):
    """Operate alerts. Exits 1 if an id is unknown or there was nothing to do; stderr names it."""

    help = "List alerts; acknowledge, resolve or silence them."
    examples, subject = EXAMPLES, "alerts"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        number = partial(listed_number, "alerts list")
        listing = add("list", help="unresolved alerts, newest first, and the silences in force")
        listing.add_argument("--state", choices=[*Alert.State.values, "all"], default="", help="alerts in this state")
        listing.add_argument("--limit", type=LIMIT, default=50, metavar="N", help="at most N alerts (default: 50)")
        show = add("show", help="one alert with its messages")
        show.add_argument("id", type=number, metavar="ID")
        for verb, text in (("acknowledge", "mark as known"), ("resolve", "mark as over")):
            act = add(verb, help=text)
            act.add_argument("ids", type=number, nargs="+", metavar="ID")
            act.add_argument("--reason", default="", help="why, for the audit log")
        note = add("note", help="write a note on an alert, for the next shift")
        note.add_argument("id", type=number, metavar="ID")
        note.add_argument("text", metavar="TEXT", help="at most 500 characters")
        silence = add("silence", help="send no alerts of a fingerprint, or none at all, for a time")
        silence.add_argument("fingerprint", nargs="?", default="", metavar="FINGERPRINT", help="or an alert's id")
        silence.add_argument("--all", action="store_true", dest="every", help="every alert, whatever happens")
        silence.add_argument("--for", dest="span", required=True, metavar="SPAN", help="30m, 2h or 7d; at most 30d")
        silence.add_argument("--reason", required=True, help="why, shown beside the silence")
        unsilence = add("unsilence", help="end a silence before its time")
        unsilence.add_argument("id", type=number, metavar="ID", help="of the silence, see list")
        unsilence.add_argument("--reason", default="", help="why, for the audit log")
        add("channels", help="the channels, each with its last message")
        test = add("test", help="send a channel one message that says it is a test")
        test.add_argument("channel", metavar="CHANNEL", help="its name or number, see channels")

    def _list(self, options: dict[str, Any]) -> None:
        state = options["state"]
        states = () if state == "all" else (state,) if state else tuple(UNRESOLVED)
        chosen = Alert.objects.filter(state__in=states) if states else Alert.objects.all()
        rows = notice.counted_now(chosen[: options["limit"]])
        silences = notice.open_silences()
        shown = [silence_json(silence) for silence, _ in silences]
        lines = [*(map(alert_line, rows) if rows else ["No alert is as asked."]), *starmap(silence_line, silences)]
        self.answer(lines, {"alerts": [alert_json(row) for row in rows], "silences": shown}, indent=2)
        if not self.as_json:
            self.stderr.write(f"alerts: {notice.headline()}.")

    def _show(self, options: dict[str, Any]) -> None:
        [row] = notice.counted_now(self._rows([options["id"]]))
        deliveries = list(row.deliveries.all())
        lines = [alert_text(row, deliveries), *map(note_line, notes_on("alert", str(row.pk)))]
        self.answer(lines, alert_json(row, deliveries), indent=2)

    def _apply(self, options: dict[str, Any]) -> None:
        rows, who, reason = self._rows(options["ids"]), Who.of_command(), options["reason"]
        acknowledges = options["verb"] == "acknowledge"
        done = acts.apply(options["verb"], rows, who=who, reason=reason)
        past = "Acknowledged" if acknowledges else "Resolved"
        self.answer(f"{past} {counted(done, 'alert')}.", {"done": done, "asked": len(rows)}, indent=2)
        if done < len(rows):
            before = "acknowledged or resolved" if acknowledges else "resolved"
            raise CommandError(f"alerts: {len(rows) - done} had been {before} before")

    _acknowledge = _resolve = _apply

    def _note(self, options: dict[str, Any]) -> None:
        [row] = self._rows([options["id"]])
        write_note("alert", str(row.pk), options["text"], who=Who.of_command())
        self.answer(f"Noted on alert {row.pk}.", {"id": row.pk, "noted": True})

    def _silence(self, options: dict[str, Any]) -> None:
        fingerprint = options["fingerprint"]
        if bool(fingerprint) == options["every"]:
            raise wrong("silence: name a fingerprint, or --all")
        if fingerprint.isdecimal() and len(fingerprint) < FINGERPRINT_LENGTH:
            [alert] = self._rows([int(fingerprint)])
            fingerprint = alert.fingerprint
        elif fingerprint and not Alert.objects.filter(fingerprint=fingerprint).exists():
            fact = f"no alert has had the fingerprint {fingerprint} yet"
            self.stderr.write(f"alerts: {fact}; manage.py switchyard alerts show ID")
        try:
            made = acts.silence(fingerprint, end_of(options["span"]), who=Who.of_command(), reason=options["reason"])
        except ActRefused as error:
            raise wrong(str(error)) from error
        text = f"Silence {made.pk}: {made}. It ends by itself, or with manage.py switchyard alerts unsilence {made.pk}"
        self.answer(text, silence_json(made), indent=2)

    def _unsilence(self, options: dict[str, Any]) -> None:
        ended = acts.unsilence(options["id"], who=Who.of_command(), reason=options["reason"])
        if ended is None:
            fact = f"silence {options['id']}: no silence in force has this id"
            raise CommandError(f"{fact}; see manage.py switchyard alerts list")
        self.answer(f"Silence {ended.pk} has ended: alerts from now on are sent.", silence_json(ended), indent=2)

    def _channels(self, options: dict[str, Any]) -> None:
        rows = channel_rows()
        lines = []
        for number, row in enumerate(rows, start=1):
            at = f"last message {row['at']:%Y-%m-%d %H:%M:%S} UTC" if row["at"] else "no message yet"
            failing = f", failing: {row['error']}" if row["error"] else ""
            lines.append(printable(f"{number:>3}  {row['name']}: {at}{failing}"))
        values = [row | {"at": row["at"] and row["at"].isoformat()} for row in rows]
        self.answer(lines, values)

    def _test(self, options: dict[str, Any]) -> None:
        name = options["channel"]
        names = list(channels())
        if name.isdecimal() and 0 < int(name) <= len(names):
            name = names[int(name) - 1]
        try:
            took_s = acts.send_test(name, who=Who.of_command())
        except ChannelFailed as error:
            fact = f"{name} did not accept the test: {error.fact}; check its entry in SWITCHYARD_ALERT_URLS"
            raise CommandError(fact) from error
        text = f"{name} accepted a test message within {duration(took_s * 1_000)}."
        self.answer(text, {"channel": name, "took_s": round(took_s, 3)})

    def _rows(self, ids: list[int]) -> list[Alert]:
        found = Alert.objects.in_bulk([pk for pk in ids if 0 < pk < 2**63])
        unknown = [str(pk) for pk in ids if pk not in found]
        if unknown:
            fact = f"alert {', '.join(unknown)}: no alert has this id"
            raise CommandError(f"{fact}; see manage.py switchyard alerts list --state all")
        return [found[pk] for pk in dict.fromkeys(ids)]
