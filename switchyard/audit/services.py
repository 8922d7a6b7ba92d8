"""Writes of the audit log, notes among them, and the two ready roles: groups with rights to look, and to operate.

Every act of a person on the yard runs inside ``act``, whether it comes from a page, the API or a command::

    with act("queue.pause", who=Who.of_request(request), target="default", reason=reason) as entry:
        entry.count = pause(...)
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.management import create_permissions
from django.core.exceptions import PermissionDenied
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, router, transaction
from django.db.models import QuerySet
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import ActRefused
from switchyard.conf import switchyard_settings
from switchyard.console import links
from switchyard.console.formatting import iso, time_ms
from switchyard.console.queue_rights import queue_rights
from switchyard.database import delete_old, storable
from switchyard.loggers import get_logger
from switchyard.middleware.logs import printable

if TYPE_CHECKING:
    from django.http import HttpRequest

ACTS: dict[str, str] = {
    "queue.pause": "Pause a queue",
    "queue.resume": "Resume a queue",
    "queue.purge": "Purge a queue",
    "queue.purge_undo": "Undo a purge",
    "queue.relocate": "Relocate an actor's messages",
    "queue.note": "Note on a queue",
    "room.note": "Note on the overview",
    "queue.import": "Import a queue's messages",
    "actor.pause": "Pause an actor",
    "actor.resume": "Resume an actor",
    "circuit.open": "Open a circuit",
    "limit.override": "Override a limit",
    "worker.quiet": "Quiet a worker",
    "worker.resume": "Let a worker take work again",
    "worker.stop": "Stop a worker",
    "job.cancel": "Cancel a job",
    "job.edit": "Edit a job",  # up to 0.10
    "job.run_again": "Run a job again",
    "job.run_now": "Run a scheduled job now",
    "job.send": "Send a job",
    "letter.acknowledge": "Acknowledge dead letters",
    "letter.requeue": "Requeue dead letters",
    "letter.discard": "Discard dead letters",
    "letter.restore": "Restore discarded dead letters",
    "letter.take_back": "Take back requeued dead letters",
    "letter.note": "Note on a dead letter",
    "letter.edit": "Edit and requeue a dead letter",
    "quarantine.requeue": "Requeue quarantined messages",
    "quarantine.discard": "Discard quarantined messages",
    "alert.acknowledge": "Acknowledge alerts",
    "alert.silence": "Silence alerts",
    "alert.unsilence": "End a silence",
    "alert.resolve": "Resolve alerts",
    "alert.test": "Send a test to a channel",
    "alert.note": "Note on an alert",
    "schedule.run": "Run a schedule now",
    "schedule.pause": "Pause a schedule",
    "schedule.resume": "Resume a schedule",
    "schedule.save": "Make or change a schedule",
    "schedule.delete": "Delete a schedule",
    "batch.cancel": "Cancel a batch",
    "batch.retry": "Requeue what failed in a batch",
    "bulk.start": "Start a bulk act",
    "bulk.stop": "Stop a bulk act",
    "token.create": "Create an API token",
    "token.rename": "Rename an API token",
    "token.revoke": "Revoke an API token",
    "token.delete": "Delete an API token",
    "settings.change": "Change a setting",
}

PAUSE, PURGE, RUN = "switchyard_operations.pause_queue", "switchyard_operations.purge_queue", "switchyard_jobs.run_job"
LETTERS = "switchyard_dead_letters.{}_deadletter"
# Rights that acts on queues need, on each of their queues; that of a bulk act is its kind's.
QUEUE_RIGHTS: Final = {
    **dict.fromkeys(("queue.pause", "queue.resume", "queue.relocate", "queue.note"), PAUSE),
    **dict.fromkeys(("actor.pause", "actor.resume", "circuit.open", "limit.override"), PAUSE),
    **dict.fromkeys(("queue.purge", "queue.purge_undo"), PURGE),
    **dict.fromkeys(("job.run_again", "job.run_now", "job.send"), RUN),
    "job.cancel": "switchyard_jobs.cancel_job",
    **dict.fromkeys(("letter.acknowledge", "letter.note"), LETTERS.format("acknowledge")),
    **dict.fromkeys(("letter.requeue", "letter.edit"), LETTERS.format("requeue")),
    **dict.fromkeys(("letter.discard", "letter.restore"), LETTERS.format("discard")),
}


# Columns that the JSON of a row has as they are.
IN_JSON = ("act", "target", "who", "via", "token", "reason", "count", "outcome", "error", "detail")
# Thing -> address of the page of one by its name or id.
PAGES = {
    "queue": links.queue_url,
    "worker": links.worker_url,
    "job": links.job_url,
    "schedule": links.schedule_url,
    "letter": links.job_url,
}
# Names of bulk acts in the log.
BULK = re.compile(r"bulk act (\d{1,18})")


def newest_entries(*, since: datetime, limit: int) -> list[dict[str, Any]]:
    return [shown(entry.without_value()) for entry in AuditEntry.objects.filter(at__gte=since)[:limit]]


def shown(entry: AuditEntry) -> dict[str, Any]:
    """Return a row with its act in words and the address of its target, or "", for a page."""
    return {"entry": entry, "label": act_label(entry), "url": target_url(entry)}


def as_json(entry: AuditEntry) -> dict[str, Any]:
    """Return a row as JSON; times are ISO 8601 in UTC."""
    return {
        "id": entry.pk,
        "at": iso(entry.at),
        "ended_at": entry.ended_at and iso(entry.ended_at),
        **{name: getattr(entry, name) for name in IN_JSON},
    }


def act_label(entry: AuditEntry) -> str:
    """Return an act in words; the name of one that only another release knows."""
    return ACTS.get(entry.act, entry.act)


def target_url(entry: AuditEntry) -> str:
    """Return the address of the page of an act's target, or ""."""
    thing, target = entry.act.partition(".")[0], entry.target
    if not target:
        return ""
    if bulk := BULK.fullmatch(target):
        return links.bulk_act_url(int(bulk[1]))
    if thing == "letter" and target == entry.detail.get("group"):
        return links.letters_url(fingerprint=target, state="all")
    if thing == "alert":
        return links.alert_url(int(target)) if target.isdecimal() else ""
    return PAGES[thing](target) if thing in PAGES else ""


LONGEST_TEXT: Final = 255


EXACT: Final = ("who", "target", "via", "outcome")
TIMES: Final = {"since": "at__gte", "until": "at__lt"}


def conditions_of(query: Mapping[str, str]) -> dict[str, str]:
    """Return the conditions in a request's query, without unknown names; ``ValueError`` quotes an unusable one.

    All must hold. ``act`` is the name of an act, or of its thing alone, such as ``queue``; ``since`` and ``until``
    (which is left out) are ISO 8601, or ``30m``, ``1h``, ``7d`` ago.
    """
    found = {name: value for name in ("act", *EXACT, *TIMES) if (value := query.get(name, "").strip())}
    for name, value in found.items():
        if len(value) > LONGEST_TEXT or "\0" in value:
            raise ValueError(f"{name}: {value!r:.40} has over {LONGEST_TEXT} characters, or a NUL; shorten it")
    acts = [*ACTS, *{name.partition(".")[0] for name in ACTS}]
    for name, known in (("via", AuditEntry.Via.values), ("outcome", AuditEntry.Outcome.values), ("act", acts)):
        if name in found and found[name] not in known:
            raise ValueError(f"{name}: {found[name]!r:.100} is none of {', '.join(sorted(known))}")
    for name in TIMES:
        time_ms(name, found.get(name, ""))
    return found


def entries(asked: Mapping[str, str]) -> QuerySet[AuditEntry]:
    """Return the rows that match :func:`conditions_of`, newest first."""
    rows = AuditEntry.objects.filter(**{name: asked[name] for name in EXACT if name in asked})
    if act := asked.get("act"):
        rows = rows.filter(act=act) if "." in act else rows.filter(act__startswith=f"{act}.")
    for name, lookup in TIMES.items():
        if (ms := time_ms(name, asked.get(name, ""))) is not None:
            rows = rows.filter(**{lookup: datetime_of(ms)})
    return rows


LONGEST_NAME = 150
# Of a reason or a note, in characters.
LONGEST_REASON: Final = 500
Queues = Iterable[str] | Callable[[], Iterable[str] | None] | None


class Who(msgspec.Struct, frozen=True):
    """A person, and the way on which the act came.

    Args:
        name: User name.
        via: ``page``, ``api`` or ``command``.
        token: Public part of the API token, if any.
        only: Of rights that hold for some queues alone, these queues.
    """

    name: str
    via: str
    token: str = ""
    only: Mapping[str, frozenset[str]] = {}

    @property
    def signature(self) -> str:
        """Name for the history of a row: that of a command's user is marked, ``ada (shell)``."""
        return f"{self.name} (shell)"[:LONGEST_NAME] if self.via == "command" else self.name

    def require(self, right: str, queues: Queues) -> None:
        """Refuse an act on other queues than those that a right holds for; also one whose queues are not known.

        Raises:
            PermissionDenied: with the right and the queue.
        """
        if (only := self.only.get(right)) is None:
            return
        found = queues() if callable(queues) else queues
        if found is None or (beyond := {*found} - only):
            of = "all queues" if found is None else min(beyond) or "a queue that is not known"
            has = ", ".join(sorted(only)) or "no queue"
            raise PermissionDenied(f"The missing right is {right}, for {of}; {self.name} has it for {has}.")

    @classmethod
    def of_request(cls, request: HttpRequest, *, own: bool = False) -> Who:
        """Return the owner of a request's token, or else its user; ``own`` acts are on the person's own work."""
        token = getattr(request, "auth", None)
        if token is not None and hasattr(token, "prefix"):
            return cls.of_token(token, own=own)
        user = getattr(request, "user", None)
        if not isinstance(user, AbstractBaseUser):
            return cls("anonymous", "page")
        return cls(str(user.get_username())[:LONGEST_NAME], "page", only={} if own else queue_rights(user))

    @classmethod
    def of_token(cls, token: Any, *, own: bool = False) -> Who:
        only = {} if own else queue_rights(token.owner)
        return cls(str(token.owner.get_username())[:LONGEST_NAME], "api", token.prefix, only)

    @classmethod
    def of_command(cls) -> Who:
        """Return the system user of this process; under ``sudo`` the person who called it."""
        return cls(_system_user()[:LONGEST_NAME], "command")


def _system_user() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid {os.getuid()}"
    person = os.environ.get("SUDO_USER", "")
    return f"{person} as {user}" if person and person != user else user


log = get_logger(__name__)


@contextmanager
def act(
    name: str, *, who: Who, target: str = "", reason: str = "", detail: dict[str, Any] | None = None,
    essential: bool = True, queues: Queues = None,
) -> Iterator[AuditEntry]:  # fmt: skip
    """Write an act's row, run the act, and complete the row: ``done``, or ``failed`` with the error's class.

    Here, and nowhere else, an act is refused on queues on which the person's right does not hold.

    The act sets ``entry.count`` where it is not 1, and may set ``target`` and ``detail``. One that fails without an
    exception sets ``entry.error``. Outside of a transaction the row is committed before the act begins, so that an act
    whose process is killed leaves it as ``begun``.

    Args:
        name: One of ``queries.ACTS``.
        reason: Why, in the person's words; cut after 500 characters.
        detail: More of it as JSON: ids, filter, values before and after. Arguments of jobs only where the page hides
            them.
        essential: Refuse the act when the row cannot be written. Without it the act runs, and the log has the row.
        queues: Queues that it is on, or what finds them, called if it matters. ``None`` for all, or for the target.

    Raises:
        PermissionDenied: the person's right does not hold on one of the queues; nothing is written.
        ValueError: the name is not known.
        django.db.DatabaseError: the row could not be written, and the act has not begun.
    """
    entry = _begun(name, who, target, reason, detail)
    who.require(QUEUE_RIGHTS.get(name, ""), [target] if queues is None and name.startswith("queue.") else queues)
    try:
        with transaction.atomic():  # a failed write leaves the caller's transaction usable
            entry.save(force_insert=True)
    except DatabaseError as error:
        if essential:
            raise
        _log_unwritten(entry, error)
    try:
        yield entry
    except BaseException as error:
        entry.error = type(error).__name__
        _complete(entry, AuditEntry.Outcome.FAILED)
        raise
    entry.count = 1 if entry.count is None and not entry.error else entry.count
    _complete(entry, AuditEntry.Outcome.FAILED if entry.error else AuditEntry.Outcome.DONE)


def begin(name: str, *, who: Who, target: str = "", reason: str = "", detail: dict[str, Any] | None = None) -> int:
    """Write the row of an act that another process ends, such as a bulk act, and return its id for ``complete``.

    Raises:
        ValueError: the name is not known.
        django.db.DatabaseError: the row could not be written.
    """
    entry = _begun(name, who, target, reason, detail)
    entry.save(force_insert=True)
    return entry.pk


def complete(number: int, *, count: int, error: str = "", detail: dict[str, Any] | None = None) -> None:
    """Complete the row of an act that ``begin`` wrote, adding to its detail. Nothing happens if the row is gone."""
    entry = AuditEntry.objects.filter(pk=number).first()
    if entry is None:
        return
    entry.count, entry.error, entry.detail = count, error, {**entry.detail, **(detail or {})}
    _complete(entry, AuditEntry.Outcome.FAILED if error else AuditEntry.Outcome.DONE)


def delete_old_rows() -> int:
    """Delete rows older than the setting ``audit_days``, as many as ``delete_old`` does; return the count."""
    before = timezone.now() - timedelta(days=switchyard_settings().audit_days)
    return delete_old(AuditEntry.objects.filter(at__lt=before).order_by("at"))


def _begun(name: str, who: Who, target: str, reason: str, detail: dict[str, Any] | None) -> AuditEntry:
    if name not in ACTS:
        raise ValueError(f"act {name!r} is not known; declare it in switchyard/audit/services.py")
    return AuditEntry(
        act=name, target=storable(target)[:255], reason=storable(reason)[:500], detail=_storable(detail or {}),
        who=who.name, via=who.via, token=who.token,
    )  # fmt: skip


def _complete(entry: AuditEntry, outcome: AuditEntry.Outcome) -> None:
    entry.outcome, entry.ended_at = outcome, timezone.now()
    entry.target, entry.error = storable(entry.target)[:255], storable(entry.error)[:300]
    entry.detail = _storable(entry.detail)
    if entry.pk is None:
        return
    try:
        with transaction.atomic():
            entry.save(update_fields=("target", "count", "detail", "outcome", "error", "ended_at"))
    except DatabaseError as error:  # the act is over: raising here would report it as failed
        _log_unwritten(entry, error)


def _storable(value: Any) -> Any:
    """Return a JSON value that PostgreSQL can store: an act is refused when its row cannot be written."""
    if isinstance(value, dict):
        return {storable(str(name)): _storable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return storable(value) if isinstance(value, str) else value


def _log_unwritten(entry: AuditEntry, error: DatabaseError) -> None:
    log.error(
        "audit row not written: the database does not answer",
        act=entry.act, target=entry.target, who=entry.who, via=entry.via, outcome=entry.outcome, count=entry.count,
        error=type(error).__name__,
    )  # fmt: skip


READ_ONLY, OPERATOR = "Switchyard read-only", "Switchyard operator"
VIEW_RIGHTS = (
    "switchyard_operations.view_operations",
    "switchyard_jobs.view_job",
    "switchyard_dead_letters.view_deadletter",
    "switchyard_alerts.view_alert",
    "switchyard_schedules.view_schedulestate",
    "switchyard_bulk.view_bulkact",
    "switchyard_audit.view_auditentry",
)
OPERATOR_RIGHTS = (
    *VIEW_RIGHTS,
    "switchyard_jobs.view_arguments",
    "switchyard_jobs.cancel_job",
    "switchyard_jobs.run_job",
    "switchyard_operations.dump_stacks",
    "switchyard_operations.pause_queue",
    "switchyard_operations.purge_queue",
    "switchyard_operations.instruct_workers",
    "switchyard_dead_letters.acknowledge_deadletter",
    "switchyard_dead_letters.requeue_deadletter",
    "switchyard_dead_letters.discard_deadletter",
    "switchyard_bulk.stop_bulkact",
    "switchyard_alerts.acknowledge_alert",
    "switchyard_alerts.silence_alert",
    "switchyard_schedules.run_schedule",
    "switchyard_schedules.pause_schedule",
)
ROLES = {READ_ONLY: VIEW_RIGHTS, OPERATOR: OPERATOR_RIGHTS}


def make_roles(using: str = DEFAULT_DB_ALIAS) -> None:
    """Create both groups and give each the rights that it has not been given before. Safe to repeat.

    What people changed stays so: a right that was taken away from a group, and a group that was renamed or deleted.
    """
    from django.contrib.auth.models import Group, Permission

    from switchyard.audit.models import GrantedRight

    given = set(GrantedRight.objects.using(using).values_list("role", "right"))
    made = {role for role, _ in given}
    there = set(Group.objects.using(using).filter(name__in=ROLES).values_list("name", flat=True))
    missing = {
        role: [right for right in rights if (role, right) not in given]
        for role, rights in ROLES.items()
        if role in there or role not in made
    }
    if not any(missing.values()):
        return
    permissions = Permission.objects.using(using).select_related("content_type")
    known = {f"{each.content_type.app_label}.{each.codename}": each for each in permissions}
    for role, rights in missing.items():
        if new := [right for right in rights if right in known]:
            with transaction.atomic(using=using):
                group, _ = Group.objects.using(using).get_or_create(name=role)
                group.permissions.add(*(known[right] for right in new))
                grants = (GrantedRight(role=role, right=right) for right in new)
                GrantedRight.objects.using(using).bulk_create(grants, ignore_conflicts=True)


def after_migrate(sender: Any, using: str = DEFAULT_DB_ALIAS, **options: Any) -> None:
    """Make the roles once the last app's permissions exist."""
    from switchyard.audit.models import GrantedRight

    if not router.allow_migrate_model(using, GrantedRight):
        return
    if GrantedRight._meta.db_table not in connections[using].introspection.table_names():
        return
    # Django creates an app's permissions at the same signal, perhaps after this.
    create_permissions(sender, using=using, verbosity=0)
    make_roles(using)


def last_app() -> Any:
    """Return the app for which ``migrate`` sends its last signal."""
    return [config for config in apps.get_app_configs() if config.models_module is not None][-1]


SHOWN: Final = 10


def write_note(kind: str, target: str, text: str, *, who: Who) -> None:
    """Write a note.

    Args:
        kind: ``alert``, ``queue`` or ``room``.
        text: Cut after 500 characters.

    Raises:
        ActRefused: it is empty.
        django.db.DatabaseError: the audit log cannot be written; nothing was noted.
    """
    note = storable(text).strip()[:LONGEST_REASON]
    if not note:
        raise ActRefused("note", "it is empty; write at most 500 characters", by_argument=True)
    with act(f"{kind}.note", who=who, target=target, reason=note):
        pass  # the row is the note


def note_line(note: AuditEntry) -> str:
    return printable(f"{'note':16} {note.at:%Y-%m-%d %H:%M} UTC, {note.who}: {note.reason}")


def notes_on(kind: str, target: str) -> list[AuditEntry]:
    """Return the newest notes, at most ten, the newest first; none while the database does not answer."""
    try:
        rows = AuditEntry.objects.filter(act=f"{kind}.note", target=target, outcome=AuditEntry.Outcome.DONE)
        return list(rows.order_by("-id")[:SHOWN])
    except DatabaseError:
        return []
