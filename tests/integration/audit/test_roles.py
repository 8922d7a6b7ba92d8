"""The two ready roles, made by ``migrate``."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command

from switchyard.audit.models import GrantedRight
from switchyard.audit.roles import OPERATOR, READ_ONLY, ROLES, make_roles

pytestmark = pytest.mark.django_db


def rights_of(role: str) -> set[str]:
    rows = Group.objects.get(name=role).permissions.values_list("content_type__app_label", "codename")
    return {f"{app}.{name}" for app, name in rows}


@pytest.mark.parametrize("role", [READ_ONLY, OPERATOR])
def test_migrated_database_has_each_role_with_its_rights(role: str) -> None:
    assert rights_of(role) == set(ROLES[role])


def test_read_only_has_view_rights_alone() -> None:
    assert {right.partition(".")[2].partition("_")[0] for right in rights_of(READ_ONLY)} == {"view"}
    assert "switchyard_jobs.view_arguments" not in rights_of(READ_ONLY)


def test_next_migration_changes_nothing_that_people_changed() -> None:
    operators = Group.objects.get(name=OPERATOR)
    operators.permissions.remove(Permission.objects.get(codename="discard_deadletter"))
    Group.objects.get(name=READ_ONLY).delete()

    call_command("migrate", verbosity=0)

    assert rights_of(OPERATOR) == set(ROLES[OPERATOR]) - {"switchyard_dead_letters.discard_deadletter"}
    assert not Group.objects.filter(name=READ_ONLY).exists()


def test_right_of_a_later_release_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROLES, READ_ONLY, (*ROLES[READ_ONLY], "switchyard_operations.dump_stacks"))

    for _ in range(2):
        make_roles()

    assert "switchyard_operations.dump_stacks" in rights_of(READ_ONLY)
    assert GrantedRight.objects.filter(right="switchyard_operations.dump_stacks", role=READ_ONLY).count() == 1


def test_right_that_no_app_has_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROLES, READ_ONLY, (*ROLES[READ_ONLY], "switchyard_operations.fly"))

    make_roles()

    assert "switchyard_operations.fly" not in rights_of(READ_ONLY)
