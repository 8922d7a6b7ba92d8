"""Rights that hold for some queues alone: those that a user has through groups to which the admin gives queues."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from django.apps import apps

ARGUMENTS: Final = "switchyard_jobs.view_arguments"
# Other rights are of no queue, and hold as a whole.
NARROWED: Final = frozenset({
    ARGUMENTS, "switchyard_jobs.cancel_job", "switchyard_jobs.run_job",
    "switchyard_operations.pause_queue", "switchyard_operations.purge_queue",
    *(f"switchyard_dead_letters.{act}_deadletter" for act in ("acknowledge", "requeue", "discard")),
})  # fmt: skip
KEPT: Final = "switchyard_queue_rights"


def queue_rights(user: Any) -> Mapping[str, frozenset[str]]:
    """Return the queues of each right that holds for some alone; any other holds for all. Read once a user object.

    A right holds for all queues if the user has it from anywhere but groups with queues.
    """
    found: Mapping[str, frozenset[str]] | None = getattr(user, KEPT, None)
    if found is None:
        found = _read(user)
        setattr(user, KEPT, found)
    return found


def _read(user: Any) -> dict[str, frozenset[str]]:
    if user.pk is None or not hasattr(user, "groups") or user.is_superuser:
        return {}
    rows = apps.get_model("switchyard_audit.GroupQueues").objects.filter(group__in=user.groups.all())
    queues = dict(rows.values_list("group_id", "queues"))
    if not queues:
        return {}
    named = ("content_type__app_label", "codename")
    whole = {".".join(row) for row in user.user_permissions.values_list(*named)}
    found: dict[str, set[str]] = defaultdict(set)
    for group, *right in user.groups.values_list("pk", *(f"permissions__{name}" for name in named)):
        if group not in queues:
            whole.add(".".join(map(str, right)))
        else:
            found[".".join(map(str, right))].update(queues[group])
    return {right: frozenset(found[right]) for right in NARROWED & found.keys() - whole}


def holds(user: Any, right: str, queue: str | None = None) -> bool:
    """Return whether a user has a right for a queue; with "" for all of them; without one for any.

    Arguments alone are to be seen of all queues then: acts are refused on others by themselves.
    """
    if not user.has_perm(right):
        return False
    if queue is None and right != ARGUMENTS:
        return True
    return queue in queue_rights(user).get(right, (queue,))


class UserOfQueue:
    """A user as the ``perms`` of a template ask it, with the rights for one queue, or with "" for all queues."""

    def __init__(self, user: Any, queue: str) -> None:
        self.user, self.queue = user, queue

    def has_perm(self, right: str) -> bool:
        return holds(self.user, right, self.queue)

    def has_module_perms(self, app_label: str) -> bool:
        return bool(self.user.has_module_perms(app_label))
