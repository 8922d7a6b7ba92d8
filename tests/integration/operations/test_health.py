from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client

from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.operations import views
from switchyard.operations.timeouts import TimedCall
from switchyard.wiring import build_yard
from tests.factories.brokers import the_global_broker

pytestmark = pytest.mark.django_db(transaction=True)


def test_liveness_asks_nobody(broker_away: None) -> None:
    answer = Client().get("/healthz")

    assert (answer.status_code, answer.content) == (200, b"ok\n")


def test_readiness_names_each_dependency(facilities: Facilities) -> None:
    answer = Client().get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {
        "ready": True,
        "dependencies": {"broker": {"ok": True, "fact": "answers"}, "database": {"ok": True, "fact": "answers"}},
    }


def test_broker_that_is_away_is_named_without_its_address(broker_away: None) -> None:
    answer = Client().get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["dependencies"]["broker"] == {"ok": False, "fact": "ConnectionError"}
    assert answer.json()["dependencies"]["database"]["ok"]
    assert "127.0.0.1" not in answer.content.decode()


@pytest.fixture
def silent_broker() -> Iterator[None]:
    """A broker whose server takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = connect(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with the_global_broker(build_yard(settings.SWITCHYARD.topology, client, Keys("silent"))):
            yield


def test_broker_that_hangs_is_named_in_time(silent_broker: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(views, "BROKER", TimedCall("broker", views._ask_broker))

    facts = {Client().get("/readyz").json()["dependencies"]["broker"]["fact"] for _ in range(3)}

    # The call itself gives up after a second: on a busy machine before, or between, two requests.
    assert facts <= {"no answer within 0.2 s", "TimeoutError"}

    assert sum(thread.name == "call broker" for thread in threading.enumerate()) <= 2


def test_database_that_is_away_is_named_without_its_name(
    facilities: Facilities, monkeypatch: pytest.MonkeyPatch
) -> None:
    name: Any = connection.settings_dict["NAME"]
    monkeypatch.setitem(connection.settings_dict, "NAME", "/nowhere/canary")
    try:
        answer = Client().get("/readyz")
    finally:
        monkeypatch.setitem(connection.settings_dict, "NAME", name)

    assert answer.status_code == 503
    assert answer.json()["dependencies"]["database"] == {"ok": False, "fact": "OperationalError"}
    assert "canary" not in answer.content.decode()


def test_a_database_without_tables_is_not_ready(facilities: Facilities) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE switchyard_dead_letters_deadletter RENAME TO moved_away")
    try:
        answer = Client().get("/readyz")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE moved_away RENAME TO switchyard_dead_letters_deadletter")

    assert answer.status_code == 503
    assert answer.json()["dependencies"]["database"] == {
        "ok": False,
        "fact": "table switchyard_dead_letters_deadletter is missing; run `manage.py migrate`",
    }
