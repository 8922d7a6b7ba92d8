"""Pauses in the API: listed, made and ended, with the rights of the token's owner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group, Permission, User
from django.test import Client

from switchyard.api.tokens import create_token
from switchyard.audit.models import AuditEntry, GroupQueues
from switchyard.broker.interface import Facilities

pytestmark = pytest.mark.django_db(transaction=True)
ADDRESS = "/api/v1/pauses"


@pytest.fixture
def ada(facilities: Facilities) -> Iterator[User]:
    @dramatiq.actor(actor_name="pausable", queue_name="slow")
    def pausable(customer_id: int) -> None: ...

    made = User.objects.create_user("ada")
    made.user_permissions.set(Permission.objects.filter(codename__in=("view_job", "cancel_job", "pause_queue")))
    yield made
    del dramatiq.get_broker().actors["pausable"]


@pytest.fixture
def api(ada: User) -> Client:
    _, secret = create_token(owner=ada, scopes=["operate"], name="test")
    return Client(headers={"Authorization": f"Bearer {secret}"})


def turn(api: Client, state: str = "paused", **body: str) -> Any:
    return api.put(ADDRESS, {"state": state, **body}, content_type="application/json")


def listed(api: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.get(ADDRESS).json()["pauses"]
    return found


def test_queues_and_actors_are_paused_and_resumed(api: Client, ada: User, facilities: Facilities) -> None:
    ada.user_permissions.add(Permission.objects.get(codename="view_arguments"))

    assert turn(api, queue="slow", until="1h", reason="an import").json() == {"changed": True}
    assert turn(api, queue="slow").json() == {"changed": False}
    assert turn(api, actor="pausable").json() == {"changed": True}
    assert turn(api, actor="pausable", argument="customer_id=7").json() == {"changed": True}

    assert facilities.transport.stats("slow").paused
    queue, whole, part = listed(api)
    assert (queue["queue"], queue["actor"], queue["by"], queue["reason"]) == ("slow", None, "ada", "an import")
    assert queue["until"] > queue["since"]
    assert (whole["queue"], whole["actor"], whole["argument"], whole["until"]) == (None, "pausable", None, None)
    assert part["argument"] == "customer_id=7"

    assert turn(api, "resumed", queue="slow").json() == {"changed": True}
    assert turn(api, "resumed", actor="pausable", argument="customer_id=7").json() == {"changed": True}
    assert [each["actor"] for each in listed(api)] == ["pausable"]
    acts = list(AuditEntry.objects.filter(via="api").order_by("pk").values_list("act", flat=True))
    assert acts == ["queue.pause"] * 2 + ["actor.pause"] * 2 + ["queue.resume", "actor.resume"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"queue": "slow", "actor": "pausable"}, 422),
        ({"queue": "slow", "argument": "customer_id=7"}, 422),
        ({"queue": "slow", "until": "yesterday"}, 422),
        ({"queue": "slow", "state": "stopped"}, 422),
        ({"queue": "none"}, 404),
        ({"actor": "none"}, 404),
        ({"actor": "pausable", "argument": "customer_id=7"}, 403),
    ],
)
def test_what_is_wrong_pauses_nothing(api: Client, body: dict[str, str], status: int) -> None:
    assert turn(api, **body).status_code == status
    assert listed(api) == []


def test_value_of_an_argument_is_hidden_without_the_right_to_it(api: Client, ada: User) -> None:
    right = Permission.objects.get(codename="view_arguments")
    ada.user_permissions.add(right)
    turn(api, actor="pausable", argument="customer_id=7")
    ada.user_permissions.remove(right)

    assert [each["argument"] for each in listed(api)] == ["customer_id"]


def test_only_who_may_pause_a_queue_does(api: Client, ada: User) -> None:
    right = Permission.objects.get(codename="pause_queue")
    ada.user_permissions.remove(right)
    assert turn(api, queue="slow").status_code == 403

    group = Group.objects.create(name="reports team")
    group.permissions.add(right)
    GroupQueues.objects.create(group=group, queues=["slow"])
    ada.groups.add(group)

    assert [turn(api, queue=queue).status_code for queue in ("slow", "default")] == [200, 403]
    assert turn(api, actor="pausable").status_code == 200
    assert len(listed(api)) == 2
