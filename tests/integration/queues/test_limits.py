"""Limits and circuits by page and command: what waits for what, and a person who overrides a limit for a time."""

import re
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError
from django.urls import reverse
from dramatiq.brokers.stub import StubBroker

from switchyard.audit.models import AuditEntry
from switchyard.broker.clock import utc_now
from switchyard.broker.queue import limits as declared
from switchyard.broker.topology import FairShare
from switchyard.middleware.rate_limits import rates_of
from switchyard.queues import services
from switchyard.queues.services import family_of
from tests.factories.commands import json_of, output_of
from tests.integration.broker.queue.conftest import Family

pytestmark = pytest.mark.django_db(transaction=True)
BY_CUSTOMER, AT_ONCE, MAIL = (
    "default:concurrency:sync:customer_id",
    "default:concurrency:reconcile:",
    "default:rate_limit:send_welcome_mail:",
)


@pytest.fixture
def waiting(facilities):
    """Three jobs of customer 7 of which one runs, five at once of another actor of which two do."""
    own = family_of("default")
    family = Family(own.calls, own.keys)

    def function(customer_id: int = 1) -> None: ...

    broker = StubBroker(middleware=[])
    broker.actor_options |= {"concurrency", "ordered_by"}
    options: dict[str, Any] = {"sync": {"concurrency": "1 per customer_id"}, "reconcile": {"concurrency": 2}}
    declared.declare(
        family, [dramatiq.actor(function, actor_name=name, broker=broker, **of) for name, of in options.items()]
    )
    family.join("me/live")
    family.send("a", "b", "c", actor="sync", args=[7])
    family.send("v", "w", "x", "y", "z", actor="reconcile")
    assert sorted(family.next()) == ["a", "v", "w"]
    return family


def row_of(first: str, *words: str) -> list[str]:
    row, *_ = [
        cells for line in output_of("queues", *words).splitlines() if (cells := re.split("  +", line))[0] == first
    ]
    return row


def test_page_and_command_say_the_same(waiting, superuser):
    found = {each["id"]: each for each in json_of("queues", "limits")["limits"]}
    page = superuser.get(reverse("switchyard-limits"))
    text = page.content.decode()

    assert found.keys() >= {BY_CUSTOMER, AT_ONCE, MAIL}
    assert [(found[id_]["taken"], found[id_]["waiting"]) for id_ in (BY_CUSTOMER, AT_ONCE)] == [(1, 2), (2, 3)]
    assert found[AT_ONCE]["since"]
    assert (found[MAIL]["declared"], found[MAIL]["window_ms"], found[MAIL]["waiting"]) == (10, 60_000, 0)
    assert page.status_code == 200
    assert "2 of 2" in text and f"?limit={BY_CUSTOMER.replace(':', '%3A')}" in text
    assert "state=scheduled&amp;queue=default&amp;actor=reconcile" in text
    assert row_of(AT_ONCE, "limits")[:4] == [AT_ONCE, "reconcile 2", "2 of 2", "3"]


def test_keys_are_listed_where_arguments_may_be_seen(waiting, superuser, watcher):
    found = json_of("queues", "limits", BY_CUSTOMER)
    page = superuser.get(reverse("switchyard-limits"), {"limit": BY_CUSTOMER}).content.decode()

    [key] = found["keys"]
    assert (key["value"], key["taken"], key["waiting"], key["next_job"]) == ("7", 1, 2, "b")
    assert key["since"]
    assert (found["largest"], found["after"]) == ([key], "")
    assert "1 of 1" in page and "argument=customer_id%3D7" in page
    assert row_of("7", "limits", BY_CUSTOMER)[:4] == ["7", "1", "2", "b"]
    assert watcher.get(reverse("switchyard-limits"), {"limit": BY_CUSTOMER}).status_code == 403
    assert superuser.get(reverse("switchyard-limits"), {"limit": "none"}).status_code == 404
    odd = [{"limit": BY_CUSTOMER, "value": value} for value in ("[" * 1_000, '"\\ud800"', "9" * 900)]
    assert [superuser.get(reverse("switchyard-limits"), query).status_code for query in odd] == [200] * 3
    with pytest.raises(CommandError):
        output_of("queues", "limits", MAIL)


def test_how_long_still_is_a_range_by_the_runs_of_the_last_day(waiting, monkeypatch):
    assert {each.earliest for each in services.limits_now(arguments=True)[0]} == {None}

    runs = {"a:reconcile": {services.RUNS + 8: 90, services.RUNS + 10: 10}}
    monkeypatch.setattr(services, "day_of_all", lambda now_ms: runs)
    found = next(each for each in services.limits_now(arguments=True)[0] if each.id == AT_ONCE)

    assert utc_now() < found.earliest < found.latest
    assert " to " in services.still_text(found)


def test_an_operator_overrides_a_limit_on_its_page_and_ends_that(waiting, operator, watcher):
    address = reverse("switchyard-limit-override")
    assert "Override sync 1 per customer_id?" in operator.get(address, {"limit": BY_CUSTOMER}).content.decode()
    given = {"limit": BY_CUSTOMER, "n": "2", "until": "1h", "reason": "they asked"}
    wrong = ({"reason": ""}, {"n": "0"}, {"n": "many"}, {"until": ""}, {"until": "yesterday"})

    assert [operator.post(address, given | each).status_code for each in wrong] == [422] * 5
    assert watcher.post(address, given).status_code == 403
    assert operator.post(address, given | {"limit": "none"}).status_code == 404
    assert operator.post(address, given).status_code == 302

    assert waiting.next() == ["b"]
    page = operator.get(reverse("switchyard-limits")).content.decode()
    assert "2 until" in page and "by operator: they asked" in page
    assert operator.post(address, {"limit": BY_CUSTOMER, "restore": "1"}).status_code == 302
    assert services.find(BY_CUSTOMER).current == 1
    done = [(each.act, each.target, each.outcome, each.count) for each in AuditEntry.objects.order_by("pk")]
    assert done == [("limit.override", BY_CUSTOMER, "done", 1), ("limit.override", BY_CUSTOMER, "done", 1)]
    assert [entry.detail["n"] for entry in AuditEntry.objects.order_by("pk")] == [2, None]


def test_command_overrides(waiting):
    assert json_of("queues", "override", AT_ONCE, "7", "--until", "1h")["current"] == 7
    assert "reconcile 2, 7 until 20" in output_of("queues", "limits")
    assert output_of("queues", "override", AT_ONCE) == f"{AT_ONCE}: 2, as declared\n"
    with pytest.raises(CommandError):
        output_of("queues", "override", AT_ONCE, "0", "--until", "1h")
    with pytest.raises(CommandError, match="is not declared"):
        output_of("queues", "override", "none", "1", "--until", "1h")
    with pytest.raises(CommandError, match="an override has an end; write --until 30m"):
        output_of("queues", "override", AT_ONCE, "1")


def test_a_larger_rate_brings_the_reserved_starts_forward(facilities):
    actor, records = dramatiq.get_broker().actors["send_welcome_mail"], facilities.records
    ids = [actor.send_with_options(args=(f"{n}@example.com",), delay=3_600_000).message_id for n in range(3)]
    window = records.keys.window("send_welcome_mail")
    starts = [facilities.windows.reserve("send_welcome_mail", f"x{n}", limit=10, window_ms=60_000) for n in range(10)]
    late = [facilities.windows.reserve("send_welcome_mail", id_, limit=10, window_ms=60_000) for id_ in ids]
    assert starts == [0] * 10
    assert all(late)
    before = services.find(MAIL)
    assert (before.taken, before.waiting) == (10, 3)
    assert before.latest is not None

    json_of("queues", "override", MAIL, "100", "--until", "1h")

    assert facilities.windows.limit_of("send_welcome_mail", 10) == 100
    assert [records.calls.command("ZSCORE", window, id_) for id_ in ids] == [None] * 3
    family = family_of("default")
    due = [float(family.calls.command("ZSCORE", family.keys.due("live"), id_)) for id_ in ids]
    assert max(due) <= utc_now().timestamp() * 1_000
    assert json_of("queues", "override", MAIL)["current"] == 10


def test_a_circuit_is_opened_until_a_time_and_closed_by_a_person(waiting, superuser, facilities):
    [closed] = json_of("queues", "limits")["circuits"]
    assert (closed["dependency"], closed["argument"], closed["state"]) == ("webhook", "endpoint_id", "closed")
    page = reverse("switchyard-actor-open-circuit", args=["deliver_webhook"])
    given = {"argument": "endpoint_id=5f0c", "until": "10m", "reason": "they move"}

    assert "open the circuit of deliver_webhook" in superuser.get(page).content.decode().lower()
    assert superuser.post(page, given | {"reason": ""}).status_code == 422
    assert superuser.post(page, given | {"argument": ""}).status_code == 422  # it has one for each endpoint
    assert superuser.post(page, given).status_code == 302
    [opened] = json_of("queues", "limits")["circuits"]
    assert (opened["state"], opened["value"], opened["by"]) == ("open", '"5f0c"', "root")
    assert opened["next_probe_at"]
    circuit = row_of('webhook endpoint_id="5f0c"', "limits")
    assert (circuit[2], circuit[6]) == ("open", "root: they move")
    assert "Circuit opened by root" in superuser.get(reverse("switchyard-queue", args=["webhook"])).content.decode()
    assert "they move" in superuser.get(reverse("switchyard-limits")).content.decode()

    output_of("actors", "resume", "deliver_webhook", "--argument", "endpoint_id=5f0c")
    assert facilities.transport.stats("webhook").circuits == ()
    output_of("actors", "open", "deliver_webhook", "--argument", "endpoint_id=5f0c", "--until", "1m")
    assert [each.pause.by for each in facilities.transport.stats("webhook").circuits] != []
    acts = list(AuditEntry.objects.order_by("pk").values_list("act", flat=True))
    assert acts == ["circuit.open", "actor.resume", "circuit.open"]


def test_metrics_count_by_limit_and_tell_the_part_of_the_largest_customer(waiting, admin_client):
    def function(customer_id: int) -> None: ...

    actor = dramatiq.actor(function, actor_name="fan_out", broker=StubBroker(middleware=[]))
    slow = family_of("slow")
    lane = Family(slow.calls, slow.keys)
    declared.declare_fair(lane, FairShare("customer_id"), [actor])
    lane.send("a", "b", "c", args=[7])
    lane.send("d", args=[8])

    text = admin_client.get("/metrics").content.decode()

    of = '{actor="sync",argument="customer_id",kind="concurrency",queue="default"}'
    assert f"switchyard_limit_taken{of} 1.0" in text and f"switchyard_limit_waiting{of} 2.0" in text
    assert 'switchyard_fair_values{queue="slow"} 2.0' in text
    assert 'switchyard_fair_largest_share{queue="slow"} 0.75' in text


def test_several_rates_of_an_actor_count_in_windows_of_their_own(facilities):
    rates = rates_of(["2/s", "3/h"])
    names = [f"many{rate.suffix}" for rate in rates]

    def start(member: str) -> list[int]:
        return [
            facilities.windows.reserve(name, member, limit=rate.limit, window_ms=rate.window_ms)
            for name, rate in zip(names, rates, strict=True)
        ]

    assert names == ["many/1s", "many/3600s"]
    assert [start(member)[1] for member in "abc"] == [0, 0, 0]
    assert start("d")[1] > 3_000_000
    assert [rate.suffix for rate in rates_of("2/s")] == [""]
