"""The two ready roles: groups of users with the rights to look, and to operate."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.db import DEFAULT_DB_ALIAS, connections, router, transaction

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
