"""The room, its acts and the API on RabbitMQ: nothing breaks, and with users of each role nothing is refused."""

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client

from switchyard.api.models import covered_scopes
from switchyard.broker.keys import Keys
from switchyard.broker.stores.dead_lists import DeadLists
from switchyard.conf import declared_yard
from tests.addons.rabbitmq.server import build_rabbit_yard
from tests.chaos.server import server_binary
from tests.integration.project.test_urls import REQUESTS, bear, make_sample, named
from tests.integration.project.url_table import ROLES
from tests.integration.serving import test_guarded_yard
from tests.integration.serving.guarded_yard import GuardedYard
from tests.integration.serving.test_guarded_yard import browser as browser

LANE = "default"


@pytest.fixture
def on_rabbitmq(valkey, rabbitmq_server) -> Iterator[Any]:
    """The project's broker on RabbitMQ, with its actors."""
    before = dramatiq.get_broker()
    broker = build_rabbit_yard(declared_yard(), valkey, Keys(), url=rabbitmq_server.url)
    broker.flush(LANE)
    actors = list(before.actors.values())
    for actor in actors:
        actor.broker = broker
        broker.declare_actor(actor)
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(before)
    for actor in actors:
        actor.broker = before
    broker.flush(LANE)
    broker.close()


@pytest.fixture
def admin() -> Client:
    client, user = (
        Client(raise_request_exception=False),
        User.objects.create_user("ada", is_staff=True, is_superuser=True),
    )
    client.force_login(user)
    bear(client, user, covered_scopes(user))
    return client


@pytest.mark.django_db
@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_page_and_no_act_breaks_on_rabbitmq(on_rabbitmq, valkey, admin, monkeypatch):
    async def leave_open() -> None: ...  # streams close the database's connection, which is this test's

    for place in ("api", "live"):
        monkeypatch.setattr(f"switchyard.jobs.{place}.free_database", leave_open)
    dead_lists = DeadLists(on_rabbitmq.calls, on_rabbitmq.keys)
    monkeypatch.setattr("tests.integration.project.test_urls.keep", dead_lists.add)
    sample, broken, asked = vars(make_sample()), dict[str, int](), 0

    for _, row in REQUESTS:
        path = row.path.format(**sample)
        request: dict[str, Any] = {"data": {name: text.format(**sample) for name, text in row.data.items()}}
        if path.startswith("/api/") and row.method != "GET":
            request["content_type"] = "application/json"
        with transaction.atomic():
            answer = getattr(admin, row.method.lower())(path, **request)
            transaction.set_rollback(True)
        asked += 1
        if answer.status_code >= 500 and answer.status_code != row.answers[ROLES.index("admin")]:
            broken[named(row)] = answer.status_code

    assert asked > 100
    assert broken == {}


@pytest.fixture
def yard(rabbitmq_server, tmp_path) -> Iterator[GuardedYard]:
    yard = GuardedYard(tmp_path, server_binary("redis-server"), place_url=rabbitmq_server.url)
    yield yard
    yard.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_process_needs_more_than_the_rights_of_its_role(yard, browser):
    test_guarded_yard.test_no_process_needs_more_than_its_roles_rights(yard, browser, "scheduler")
