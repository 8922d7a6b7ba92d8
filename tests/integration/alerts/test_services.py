"""Slack, PagerDuty, Opsgenie, mail and Jira: one message or ticket, and one intake of the same cause; no secret."""

from __future__ import annotations

import copy
import importlib
import json
import logging
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from switchyard.alerts import acts, intake, jira, sending
from switchyard.alerts.channels import AppriseChannel, ChannelFailed, channels
from switchyard.alerts.models import Alert, Delivery
from switchyard.audit.services import Who
from tests.factories.endpoints import Answering, answers_of
from tests.factories.smtp import smtp_server
from tests.integration.alerts.conftest import fact
from tests.unit.alerts.configuration import with_alert_urls
from tests.unit.alerts.test_channels import FIRST
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcanarySecret/"
KEY = "canary-secret-canary-secret"
TOKEN = "canary-secret-token"
BASIC = "Basic b3BzQGV4YW1wbGUuY29tOmNhbmFyeS1zZWNyZXQtdG9rZW4="
WAYS: list[dict[str, Any]] = [
    {"id": "11", "to": {"statusCategory": {"key": "indeterminate"}}},
    {"id": "31", "to": {"statusCategory": {"key": "done"}}},
    {"id": "41", "to": {"statusCategory": {"key": "done"}}},
]
Answer = tuple[int, Any]


class Jira:
    """Tickets by key, each with ``fields``, ``comments`` and ``category``.

    ``ways``: its transitions; ``unseen``: keys that a search does not find yet; ``lose``: paths whose next POST is done
    and has no answer; ``broken``: bytes sent in place of each answer.
    """

    def __init__(self, *, cloud: bool = True) -> None:
        self.tickets: dict[str, dict[str, Any]] = {}
        self.ways = WAYS
        self.unseen: set[str] = set()
        self.lose: list[str] = []
        self.requests: list[str] = []
        self.broken: Callable[[], Iterator[bytes]] | None = None
        self.host = ""
        self._cloud = cloud

    @contextmanager
    def serving(self) -> Iterator[Jira]:
        jira = self

        class Handler(Answering):
            def do_GET(self) -> None:
                self.find(None)

            def do_POST(self) -> None:
                self.find(json.loads(self.body()))

            def find(self, body: Any) -> None:
                jira.requests.append(f"{self.command} {self.path.partition('?')[0]}")
                if jira.broken is not None:
                    self._pour(jira.broken())
                    return
                allowed = BASIC if jira._cloud else f"Bearer {TOKEN}"
                known = self.headers["Authorization"] == allowed
                status, found = jira.answer(self.command, self.path, body) if known else (401, {})
                if self.command == "POST" and any(self.path.endswith(path) for path in jira.lose):
                    jira.lose.clear()
                    return
                self.answer(status, b"" if found is None else json.dumps(found).encode())

            def _pour(self, parts: Iterator[bytes]) -> None:
                try:
                    for part in parts:
                        self.wfile.write(part)
                except OSError:
                    return  # the other side has given up

        with answers_of(Handler) as port:
            self.host = f"127.0.0.1:{port}"
            yield self

    @property
    def url(self) -> str:
        secret = f"ops@example.com:{TOKEN}" if self._cloud else TOKEN
        return f"jira://{secret}@{self.host}/OPS"

    def answer(self, method: str, path: str, body: Any) -> Answer:
        path, _, query = path.removeprefix("/rest/api/").partition("?")
        if method == "POST" and path == ("3/search/jql" if self._cloud else "2/search"):
            return 200, {"issues": self._found(body["jql"])}
        if method == "POST" and path == "2/issue":
            return self._create(body["fields"])
        match = re.fullmatch(r"2/issue/(OPS-\d+)(/comment|/transitions)?", path)
        if match is None or match[1] not in self.tickets:
            return 404, {"errorMessages": ["gone"]}
        ticket = self.tickets[match[1]]
        match method, match[2]:
            case "GET", None:
                assert query == "fields=status,description&expand=transitions"
                return 200, self._shown(match[1], description=ticket["fields"]["description"]) | {
                    "transitions": self.ways
                }
            case "GET", "/comment":
                assert query == "orderBy=-created&maxResults=10"
                return 200, {"comments": [{"body": each} for each in ticket["comments"][:-11:-1]]}
            case "POST", "/comment":
                ticket["comments"].append(body["body"])
                return 201, {"id": "1", "body": body["body"]}
            case "POST", "/transitions":
                way = next(each for each in self.ways if each["id"] == body["transition"]["id"])
                ticket["category"] = way["to"]["statusCategory"]["key"]
                return 204, None
        return 405, {}

    def _found(self, jql: str) -> list[dict[str, Any]]:
        match = re.fullmatch(r'labels = "(\S+)" ORDER BY created DESC', jql)
        keys = [key for key, ticket in self.tickets.items() if match[1] in ticket["fields"]["labels"]]
        return [self._shown(key) for key in reversed(keys) if key not in self.unseen]

    def _shown(self, key: str, **fields: Any) -> dict[str, Any]:
        status = {"name": "A", "statusCategory": {"id": 2, "key": self.tickets[key]["category"]}}
        return {"id": "1", "key": key, "fields": {"status": status, **fields}}

    def _create(self, fields: dict[str, Any]) -> Answer:
        if fields["project"] != {"key": "OPS"} or "\n" in fields["summary"] or len(fields["summary"]) > 255:
            return 400, {"errors": {"summary": "wrong"}}
        key = f"OPS-{len(self.tickets) + 1}"
        self.tickets[key] = {"fields": fields, "comments": [], "category": "new"}
        return 201, {"id": "10000", "key": key, "self": f"https://{self.host}/rest/api/2/issue/10000"}


def drip() -> Iterator[bytes]:
    """Yield an answer that finds no ticket, a byte of it at a time: for 1.5 s."""
    yield b'HTTP/1.1 200 OK\r\nContent-Length: 43\r\n\r\n{"issues": []'
    paced = threading.Event()
    for _ in range(29):
        paced.wait(0.05)
        yield b" "
    yield b"}"


def flood() -> Iterator[bytes]:
    """Yield an answer longer than any that is read."""
    yield b'HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n{"issues": ["'
    for _ in range(100):
        yield b"a" * 1_000_000


def nonsense(body: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body])


@pytest.fixture
def slack(receiver, monkeypatch):
    """A receiver in the place of Slack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of services that are not used here
        AppriseChannel(SLACK).service()
    from apprise.plugins.slack import NotifySlack

    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://127.0.0.1:{receiver.port}/services")
    receiver.answers, receiver.words = [200] * 10, b"ok"
    return receiver


def finding() -> Any:
    text = "Cause: it was killed.\nNext: Run `manage.py switchyard runpool urgent`."
    return fact(kind="finding", fingerprint="finding-pools.down", title="No pool serves <urgent>", detail=text)


def test_one_message_and_one_resolution_with_the_same_key_reach_each_service(groups, slack, second_receiver, caplog):
    caplog.set_level(logging.DEBUG)
    pager = second_receiver
    urls = (SLACK, f"pagerduty://{KEY}@127.0.0.1:{pager.port}", "mailto:ops@example.com")
    backend = "django.core.mail.backends.smtp.EmailBackend"
    with (
        smtp_server() as mails,
        with_alert_urls(*urls),
        override_settings(EMAIL_BACKEND=backend, EMAIL_HOST="127.0.0.1", EMAIL_PORT=mails.port),
    ):
        groups.raise_(finding())
        assert [sending.dispatch_due(), sending.dispatch_due()] == [3, 0]
        intake.resolve_gone("finding", ())
        assert [sending.dispatch_due(), sending.dispatch_due()] == [3, 0]

    text, end = (json.dumps(body) for body in slack.bodies)
    title = r"[critical] No pool serves \u2039urgent\u203a"
    for part in (title, "it was killed", "runpool urgent", "/admin/operations/"):
        assert part in text
    assert "[resolved] No pool serves" in end and "Its cause has ended" in end
    trigger, resolved = pager.bodies
    acted = [(body["event_action"], body["routing_key"]) for body in pager.bodies]
    assert acted == [("trigger", KEY), ("resolve", KEY)]
    assert trigger["dedup_key"] == resolved["dedup_key"] == "127.0.0.1/finding-pools.down"
    assert trigger["payload"]["severity"] == "critical" and trigger["payload"]["summary"].endswith("<urgent>")
    assert "runpool urgent" in trigger["payload"]["custom_details"]["text"]
    assert trigger["links"][0]["href"].startswith("http") and pager.paths == ["/v2/enqueue"] * 2
    assert [mail["Subject"].split()[0] for mail in mails.mails] == ["[critical]", "[resolved]"]
    stored = json.dumps(list(Delivery.objects.values("channel", "error")))
    assert not any(secret in caplog.text + stored for secret in (KEY, "canarySecret"))


def test_opsgenie_closes_what_it_created(groups, receiver):
    with with_alert_urls(f"oncall=opsgenie://{KEY}@127.0.0.1:{receiver.port}"):
        groups.raise_(finding())
        sending.dispatch_due()
        intake.resolve_gone("finding", ())
        sending.dispatch_due()

    assert receiver.paths == ["/v2/alerts", "/v2/alerts/127.0.0.1%2Ffinding-pools.down/close?identifierType=alias"]
    assert receiver.bodies[0]["alias"] == "127.0.0.1/finding-pools.down"
    assert [headers["authorization"] for headers in receiver.headers] == [f"GenieKey {KEY}"] * 2
    assert set(Delivery.objects.values_list("channel", flat=True)) == {"oncall"}


def test_what_a_person_resolves_is_told_where_an_incident_would_stay_open(groups, receiver, second_receiver):
    with with_alert_urls(f"pagerduty://{KEY}@127.0.0.1:{receiver.port}", second_receiver.url):
        groups.raise_(fact())
        sending.dispatch_due()
        intake.resolve(Alert.objects.get().pk, by="ada")
        sending.dispatch_due()
        ended = len(second_receiver.bodies)
        Alert.objects.update(resolved_at=timezone.now() - timedelta(seconds=1))  # the broker counts in milliseconds
        groups.raise_(fact())
        wait_for(lambda: sending.dispatch_due() == 0 and len(receiver.bodies) == 3)

    assert [body["event_action"] for body in receiver.bodies] == ["trigger", "resolve", "trigger"]
    assert (ended, len(second_receiver.bodies)) == (1, 2)


def test_refusal_and_silence_of_a_service_are_named_without_its_address(slack, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    slack.answers = [403]
    with pytest.raises(ChannelFailed, match="answered 403") as refused:
        AppriseChannel(SLACK).send(FIRST)
    monkeypatch.setattr("apprise.plugins.slack.NotifySlack.webhook_url", "http://127.0.0.1:1/services")
    with pytest.raises(ChannelFailed, match="could not send it") as gone:
        AppriseChannel(SLACK).send(FIRST)

    assert (refused.value.answered, gone.value.answered) == (True, False)
    assert not any("anarySecret" in str(text) for text in (refused.value, gone.value, caplog.text))


def test_service_that_hangs_ends_at_the_deadline(slack, monkeypatch):
    slack.hang = threading.Event()
    monkeypatch.setattr("switchyard.alerts.channels.DEADLINE_S", 0.3)

    with pytest.raises(ChannelFailed, match=r"no answer in 0.3 s|could not send"):
        AppriseChannel(SLACK).send(FIRST)

    slack.hang.set()


@pytest.mark.parametrize(
    ("module", "name", "address", "words"),
    [
        ("telegram", "NotifyTelegram", "tgram://123456789:abcdefg_hijklmnop/12315544/", b'{"ok": true, "result": {}}'),
        ("discord", "NotifyDiscord", "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", b""),
        ("discord", "NotifyDiscord", "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js?format=markdown", b""),
    ],
)
def test_the_words_of_an_error_call_nobody_and_make_no_link(receiver, monkeypatch, module, name, address, words):
    AppriseChannel(address).service()
    service = getattr(importlib.import_module(f"apprise.plugins.{module}"), name)
    monkeypatch.setattr(service, "notify_url", f"http://127.0.0.1:{receiver.port}/")
    receiver.answers, receiver.words = [200] * 5, words
    alert = copy.copy(FIRST.alert)
    alert.title = "<i>@here</i> gave up"
    alert.sample = '<urlopen error> @everyone <@123456789012345678> [Mend it](https://evil.example) <a href="//evil">'

    AppriseChannel(address).send(replace(FIRST, alert=alert))

    sent = json.dumps(receiver.bodies, ensure_ascii=False)
    assert "urlopen error" in sent and "Mend it" in sent
    assert not any(live in sent for live in ("@everyone", "@here", "<@", "](", "<a", "<i", '"123456789012345678"'))


def test_short_channel_gets_the_link(slack):
    from apprise.plugins.slack import NotifySlack

    NotifySlack.body_maxlen, whole = 60, NotifySlack.body_maxlen
    try:
        AppriseChannel(SLACK).send(FIRST)
    finally:
        NotifySlack.body_maxlen = whole

    [body] = slack.bodies
    assert "https://yard.example.com/admin/" in json.dumps(body) and "exhausted" not in json.dumps(body)


def test_test_message_says_so_and_is_a_ticket(slack, server):
    with with_alert_urls(f"team={SLACK}", f"tickets={server.url}?type=Service+Request"):
        for name in ("team", "tickets"):
            acts.send_test(name, who=Who("ada", "shell"))

    assert "Test of this channel" in json.dumps(slack.bodies[0]) and "Nothing is wrong" in json.dumps(slack.bodies[0])
    [fields] = [each["fields"] for each in server.tickets.values()]
    assert fields["issuetype"] == {"name": "Service Request"} and "Test of this channel" in json.dumps(fields)


ENDED = copy.copy(FIRST.alert)
ENDED.resolved_at = FIRST.alert.last_at + timedelta(minutes=9)
DIGEST, END = replace(FIRST, id="1-1", count=9, reported=1), replace(FIRST, id="1-9", count=9, alert=ENDED)


@pytest.fixture
def server():
    with Jira().serving() as made:
        yield made


@pytest.fixture(autouse=True)
def _another_process_with_time(monkeypatch):
    """Forget the tickets of other tests, and let a loaded machine answer late."""
    jira.created_here.clear()
    monkeypatch.setattr("switchyard.alerts.channels.DEADLINE_S", 60.0)


def send(server: Jira, *notices: Any) -> None:
    [channel] = channels([server.url]).values()
    for notice in notices:
        channel.send(notice)


@pytest.mark.parametrize("cloud", [True, False])
def test_a_ticket_is_created_commented_and_closed(cloud):
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
def test_an_alert_of_a_yard_is_one_ticket_and_one_more_when_it_comes_again(groups, server):
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
def test_repeated_message_without_an_answer_adds_nothing(server, path, comments, category):
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


def test_message_killed_between_its_comment_and_the_transition_is_finished_by_the_next_attempt(server):
    send(server, FIRST)
    server.lose.append("/comment")
    with pytest.raises(ChannelFailed):
        send(server, END)
    before = server.tickets["OPS-1"]["category"]

    send(server, END)

    assert (before, server.tickets["OPS-1"]["category"]) == ("new", "done")
    assert len(server.tickets["OPS-1"]["comments"]) == 1


def test_own_ticket_is_known_before_the_search_finds_it(server):
    server.unseen = {"OPS-1"}

    send(server, FIRST, FIRST, DIGEST, END)

    assert [(key, each["category"]) for key, each in server.tickets.items()] == [("OPS-1", "done")]


def test_second_ticket_of_a_cause_is_closed_as_well(server):
    server.unseen = {"OPS-1"}
    send(server, FIRST)
    jira.created_here.clear()
    send(server, FIRST)
    server.unseen = set()

    send(server, END)

    assert [each["category"] for each in server.tickets.values()] == ["done", "done"]


def test_ticket_that_was_deleted_is_created_again(server):
    send(server, FIRST)
    server.tickets.clear()
    with pytest.raises(ChannelFailed, match="answered 404 at 2/issue/OPS-1"):
        send(server, DIGEST)

    send(server, DIGEST)

    assert len(server.tickets) == 1


def test_ticket_that_no_transition_closes_stays_open_and_says_so_once(server):
    server.ways = WAYS[:1]

    send(server, FIRST, END, END)

    [ticket] = server.tickets.values()
    assert ticket["category"] == "new" and len(ticket["comments"]) == 1
    assert "close it by hand" in ticket["comments"][0]


def test_causes_have_tickets_of_their_own_and_the_end_of_one_without_a_ticket_creates_none(server):
    other = copy.copy(FIRST.alert)
    other.fingerprint = "beef"

    send(server, END)
    before = dict(server.tickets)
    send(server, FIRST, replace(FIRST, alert=other))

    assert (before, len(server.tickets)) == ({}, 2)


def test_words_of_an_error_are_no_markup(server):
    alert = copy.copy(FIRST.alert)
    alert.title, alert.sample = "[~ada] gave\nup" + "!" * 300, "{noformat} [Mend it|//evil] [~ada] {html} @ada"

    send(server, replace(FIRST, alert=alert))

    [fields] = [each["fields"] for each in server.tickets.values()]
    assert fields["description"].count("{") == 2 and "[" not in fields["description"]
    assert "Mend it" in fields["description"]


def test_refused_token_is_named_without_it(server, caplog):
    caplog.set_level(logging.DEBUG)
    [channel] = channels([server.url.replace("secret", "other")]).values()
    with pytest.raises(ChannelFailed, match="answered 401 at 3/search/jql") as refused:
        channel.send(FIRST)

    assert refused.value.answered and channel.name == f"jira {server.host}/OPS"
    assert not any("canary" in text for text in (caplog.text, str(refused.value), repr(channel)))
    assert server.tickets == {}


def test_answer_that_drips_ends_at_the_deadline_and_is_the_last(server, monkeypatch):
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
def test_answer_of_another_form_is_a_failure(server, broken):
    server.broken = broken

    with pytest.raises(ChannelFailed, match=r"not Jira's JSON|RecursionError"):
        send(server, FIRST)

    assert len(server.requests) == 1
