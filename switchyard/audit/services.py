"""Writes of the audit log, notes among them, and the two ready roles: groups with rights to look, and to operate.

Every act of a person on the yard runs inside ``act``, whether it comes from a page, the API or a command::

    with act("queue.pause", who=Who.of_request(request), target="default", reason=reason) as entry:
        entry.count = pause(...)
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec
from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.management import create_permissions
from django.core.exceptions import PermissionDenied
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, router, transaction
from django.utils import timezone

from switchyard.audit.models import AuditEntry
from switchyard.audit.queries import ACTS, QUEUE_RIGHTS
from switchyard.broker.errors import ActRefused
from switchyard.conf import switchyard_settings
from switchyard.console.queue_rights import queue_rights
from switchyard.database import delete_old, storable
from switchyard.loggers import get_logger
from switchyard.middleware.logs import printable

if TYPE_CHECKING:
    from django.http import HttpRequest

LONGEST_NAME = 150
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
        raise ValueError(f"act {name!r} is not known; declare it in switchyard/audit/queries.py")
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


LONGEST: Final = 500
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
    note = storable(text).strip()[:LONGEST]
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
