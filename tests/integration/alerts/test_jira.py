"""Tickets of Jira: one a cause, commented and closed; a repeated attempt adds nothing."""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from switchyard.alerts import acts, intake, jira, sending
from switchyard.alerts.channels import ChannelFailed, channels
from switchyard.alerts.models import Alert, Delivery
from switchyard.audit.services import Who
from switchyard.broker.stores.alert_groups import AlertGroups
from tests.integration.alerts.conftest import fact
from tests.integration.alerts.jira_server import WAYS, Jira, drip, flood, nonsense
from tests.unit.alerts.configuration import with_alert_urls
from tests.unit.alerts.test_channels import FIRST
from tests.waiting import wait_for

ENDED = copy.copy(FIRST.alert)
ENDED.resolved_at = FIRST.alert.last_at + timedelta(minutes=9)
DIGEST, END = replace(FIRST, id="1-1", count=9, reported=1), replace(FIRST, id="1-9", count=9, alert=ENDED)


@pytest.fixture
def server() -> Iterator[Jira]:
    with Jira().serving() as made:
        yield made


@pytest.fixture(autouse=True)
def _another_process_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the tickets of other tests, and let a loaded machine answer late."""
    jira.created_here.clear()
    monkeypatch.setattr("switchyard.alerts.channels.DEADLINE_S", 60.0)


def send(server: Jira, *notices: Any) -> None:
    [channel] = channels([server.url]).values()
    for notice in notices:
        channel.send(notice)


@pytest.mark.parametrize("cloud", [True, False])
def test_a_ticket_is_created_commented_and_closed(cloud: bool) -> None:
    with Jira(cloud=cloud).serving() as server:
        send(server, FIRST, DIGEST, END)

    [ticket] = server.tickets.values()
    assert ticket["fields"]["summary"] == "[critical] report gave up: KeyError"
    assert ticket["fields"]["issuetype"] == {"name": "Task"}
    assert "exhausted after 6 attempts" in ticket["fields"]["description"]
    assert "https://yard.example.com/admin/" in ticket["fields"]["description"].splitlines()
    more, end = ticket["comments"]
    assert "8 more, 9 since" in more and "Its cause has ended" in end
    assert ticket["category"] == "done" and server.requests[-1].endswith("/OPS-1/transitions")


@pytest.mark.django_db
def test_an_alert_of_a_yard_is_one_ticket_and_one_more_when_it_comes_again(groups: AlertGroups, server: Jira) -> None:
    with with_alert_urls(f"tickets={server.url}"):
        groups.raise_(fact())
        assert [sending.dispatch_due(), sending.dispatch_due()] == [1, 0]
        intake.resolve(Alert.objects.get().pk, by="ada")
        assert [sending.dispatch_due(), sending.dispatch_due()] == [1, 0]
        first = copy.deepcopy(server.tickets)
        Alert.objects.update(resolved_at=timezone.now() - timedelta(seconds=1))  # the broker counts in milliseconds
        groups.raise_(fact())
        wait_for(lambda: sending.dispatch_due() == 0 and len(server.tickets) == 2)

    assert [(each["category"], len(each["comments"])) for each in first.values()] == [("done", 1)]
    assert "Resolved by ada" in first["OPS-1"]["comments"][0]
    assert [(each["category"], len(each["comments"])) for each in server.tickets.values()] == [("done", 1), ("new", 0)]
    assert set(Delivery.objects.values_list("state", flat=True)) == {"sent"}


@pytest.mark.parametrize(
    ("path", "comments", "category"), [("2/issue", 0, "new"), ("/comment", 1, "new"), ("/transitions", 1, "done")]
)
def test_repeated_message_whose_answer_was_lost_adds_nothing(
    server: Jira, path: str, comments: int, category: str
) -> None:
    sent = {"2/issue": [FIRST], "/comment": [FIRST, DIGEST], "/transitions": [FIRST, END]}[path]
    send(server, *sent[:-1])
    server.lose.append(path)
    with pytest.raises(ChannelFailed, match="ProtocolError") as lost:
        send(server, sent[-1])

    jira.created_here.clear()  # as after a kill
    send(server, sent[-1], sent[-1])

    [ticket] = server.tickets.values()
    assert (len(ticket["comments"]), ticket["category"]) == (comments, category)
    assert not lost.value.answered


def test_message_killed_between_its_comment_and_the_transition_is_finished_by_the_next_attempt(server: Jira) -> None:
    send(server, FIRST)
    server.lose.append("/comment")
    with pytest.raises(ChannelFailed):
        send(server, END)
    before = server.tickets["OPS-1"]["category"]

    send(server, END)

    assert (before, server.tickets["OPS-1"]["category"]) == ("new", "done")
    assert len(server.tickets["OPS-1"]["comments"]) == 1


def test_own_ticket_is_known_before_the_search_finds_it(server: Jira) -> None:
    server.unseen = {"OPS-1"}

    send(server, FIRST, FIRST, DIGEST, END)

    assert [(key, each["category"]) for key, each in server.tickets.items()] == [("OPS-1", "done")]


def test_second_ticket_of_a_cause_is_closed_as_well(server: Jira) -> None:
    server.unseen = {"OPS-1"}
    send(server, FIRST)
    jira.created_here.clear()
    send(server, FIRST)
    server.unseen = set()

    send(server, END)

    assert [each["category"] for each in server.tickets.values()] == ["done", "done"]


def test_ticket_that_was_deleted_is_created_again(server: Jira) -> None:
    send(server, FIRST)
    server.tickets.clear()
    with pytest.raises(ChannelFailed, match="answered 404 at 2/issue/OPS-1"):
        send(server, DIGEST)

    send(server, DIGEST)

    assert len(server.tickets) == 1


def test_ticket_that_no_transition_closes_stays_open_and_says_so_once(server: Jira) -> None:
    server.ways = WAYS[:1]

    send(server, FIRST, END, END)

    [ticket] = server.tickets.values()
    assert ticket["category"] == "new" and len(ticket["comments"]) == 1
    assert "close it by hand" in ticket["comments"][0]


def test_end_of_a_cause_without_a_ticket_creates_none(server: Jira) -> None:
    send(server, END)

    assert server.tickets == {}


def test_yards_and_causes_have_tickets_of_their_own(server: Jira) -> None:
    other = copy.copy(FIRST.alert)
    other.fingerprint = "beef"

    send(server, FIRST, replace(FIRST, alert=other))

    assert len(server.tickets) == 2


def test_words_of_an_error_are_no_markup(server: Jira) -> None:
    alert = copy.copy(FIRST.alert)
    alert.title, alert.sample = "[~ada] gave\nup" + "!" * 300, "{noformat} [Mend it|//evil] [~ada] {html} @ada"

    send(server, replace(FIRST, alert=alert))

    [fields] = [each["fields"] for each in server.tickets.values()]
    assert fields["description"].count("{") == 2 and "[" not in fields["description"]
    assert "Mend it" in fields["description"]


def test_refused_token_is_named_without_it(server: Jira, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    [channel] = channels([server.url.replace("secret", "other")]).values()
    with pytest.raises(ChannelFailed, match="answered 401 at 3/search/jql") as refused:
        channel.send(FIRST)

    assert refused.value.answered and channel.name == f"jira {server.host}/OPS"
    assert not any("canary" in text for text in (caplog.text, str(refused.value), repr(channel)))
    assert server.tickets == {}


def test_answer_that_drips_ends_at_the_deadline_and_nothing_is_asked_after_it(
    server: Jira, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switchyard.alerts.channels.DEADLINE_S", 0.5)
    server.broken = drip

    with pytest.raises(ChannelFailed, match=r"no answer in 0.5 s") as late:
        send(server, FIRST)

    wait_for(lambda: not any(each.name == f"alert jira {server.host}/OPS" for each in threading.enumerate()))
    assert not late.value.answered and len(server.requests) <= 1 and server.tickets == {}


@pytest.mark.parametrize(
    "broken",
    [flood, *map(nonsense, (b"<html>", b"[]", b'{"issues": [1]}', b'{"issues": [{"key": 1}]}', b"", b"[" * 100_000))],
)
def test_answer_of_another_form_is_a_failure(server: Jira, broken: Callable[[], Iterator[bytes]]) -> None:
    server.broken = broken

    with pytest.raises(ChannelFailed, match=r"not Jira's JSON|RecursionError"):
        send(server, FIRST)

    assert len(server.requests) == 1


@pytest.mark.django_db
def test_test_message_is_a_ticket(server: Jira) -> None:
    with with_alert_urls(f"tickets={server.url}?type=Service+Request"):
        acts.send_test("tickets", who=Who("ada", "shell"))

    [fields] = [each["fields"] for each in server.tickets.values()]
    assert fields["issuetype"] == {"name": "Service Request"} and "Test of this channel" in json.dumps(fields)
