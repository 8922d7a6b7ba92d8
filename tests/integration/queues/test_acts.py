"""Queues are paused, purged and relocated by commands and on their pages, which change nothing on GET."""

import io
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.admin import purge
from switchyard.broker.admin.browse import pause_of
from switchyard.broker.clock import now_ms
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.history_streams import decode_rows
from switchyard.conf import declared_yard
from switchyard.operations import queries
from switchyard.queues.services import pause_queue
from switchyard.schedules.runner import finish_moves
from tests.factories.commands import json_of, output_of
from tests.factories.pages import text_of
from tests.integration.jobs.history_rows import job_row
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
KEY = Keys().queue("default").paused


def pause_of_default() -> dict[str, Any]:
    found: dict[str, Any] = next(queue for queue in json_of("queues") if queue["queue"] == "default")
    return found


@pytest.fixture
def starts(facilities):
    """Times at which the messages of an actor started; call ``send`` of the actor ``timed``."""
    started: list[float] = []

    @dramatiq.actor(actor_name="timed", queue_name="default")
    def timed() -> None:
        started.append(time.time())

    return started


def test_a_pause_names_its_operator_its_reason_and_its_end(facilities):
    told = json_of("queues", "pause", "default", "--until", "2h", "--reason", "disk is full")

    pause = pause_of_default()["pause"]
    assert (told["until"][:19], pause["reason"], bool(pause["by"])) == (pause["until"][:19], "disk is full", True)
    lasts_s = (datetime.fromisoformat(pause["until"]) - datetime.fromisoformat(pause["since"])).total_seconds()
    assert 7_190 < lasts_s <= 7_201
    entry = AuditEntry.objects.get()
    assert (entry.act, entry.target, entry.reason, entry.via, entry.outcome) == (
        "queue.pause", "default", "disk is full", "command", "done",
    )  # fmt: skip


@pytest.mark.parametrize("within_s", [inf, pytest.param(1.0, marks=pytest.mark.long)])
def test_an_idle_worker_starts_within_a_second_of_the_end(starts, run_worker, within_s):
    with run_worker("default"):
        until = time.time() + 5
        json_of("queues", "pause", "default", "--until", datetime.fromtimestamp(until, UTC).isoformat())
        for _ in range(20):
            dramatiq.get_broker().actors["timed"].send()
        wait_for(lambda: len(starts) == 20)

    assert min(starts) >= until - 0.01
    assert max(starts) - until < within_s
    assert pause_of_default()["pause"] is None


def test_a_reason_and_an_end_are_replaced_and_the_start_stays(valkey, facilities):
    json_of("queues", "pause", "default", "--until", "1h", "--reason", 'first "quoted" \n ünïcode')
    first = pause_of(valkey.get(KEY), KEY)

    json_of("queues", "pause", "default", "--reason", "second")
    second = pause_of(valkey.get(KEY), KEY)

    assert first.reason == 'first "quoted" \n ünïcode'
    assert (second.since, second.until, second.reason, valkey.pttl(KEY)) == (first.since, None, "second", -1)


@pytest.mark.parametrize("text", ["yesterday", "2020-01-01", "0s", "400d", "25:00"])
def test_an_end_that_is_over_or_no_time_is_refused(facilities, text):
    with pytest.raises(CommandError, match="write a span"):
        json_of("queues", "pause", "default", "--until", text)

    assert pause_of_default()["paused"] is False


def test_a_job_pauses_its_queue_until_a_time(facilities, run_worker):
    @dramatiq.actor(actor_name="asked", queue_name="default")
    def asked() -> None:
        pause_queue(datetime.now(UTC) + timedelta(hours=1), "the server asks to wait")

    with pytest.raises(LookupError, match="no job runs here"):
        asked.fn()
    job_id = asked.send().message_id
    with run_worker("default"):
        wait_for(lambda: facilities.records.states([job_id]) == ["succeeded"])

    assert (found := facilities.transport.stats("default").pause) is not None
    assert (found.by, found.reason) == (f"job {job_id}", "the server asks to wait")
    assert AuditEntry.objects.filter(act="queue.pause", who=f"job {job_id}").exists()


@pytest.fixture
def actors(facilities):
    ran: list[str] = []

    @dramatiq.actor(actor_name="moves", queue_name="default")
    def moves(name: str) -> None:
        ran.append(name)

    @dramatiq.actor(actor_name="stays", queue_name="default", redact=("name",))
    def stays(name: str) -> None:
        ran.append(name)

    return moves, stays, ran


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(actors, run_worker):
    moves, _, ran = actors
    again = threading.Event()
    assert "paused" in output_of("queues", "pause", "default")
    assert "as before" in output_of("queues", "pause", "default")
    moves.send("held")
    with run_worker("default"):
        assert not again.wait(0.3), "time for a worker to take what it must not"
        assert ran == []
        assert json_of("queues")[1]["paused"] is True
        output_of("queues", "resume", "default")
        wait_for(lambda: ran == ["held"])

    assert json_of("queues")[1]["paused"] is False


def test_only_the_actors_messages_move_and_all_run_once(actors, run_worker):
    moves, stays, ran = actors
    for number in range(450):
        (moves if number % 3 else stays).send(f"{number}")
    output_of("queues", "pause", "default")
    told = output_of("queues", "relocate", "moves", "--from", "default", "--to", "slow")
    output_of("queues", "resume", "default")
    listed = {queue["queue"]: queue["depth"] for queue in json_of("queues")}

    assert (listed["default"], listed["slow"]) == (150, 300)
    assert "450 of 450 looked at, 300 moved" in told
    with run_worker("default", "slow"):
        wait_for(lambda: len(ran) == 450)
        dramatiq.get_broker().join("slow", timeout=60_000)
    assert sorted(ran, key=int) == [str(number) for number in range(450)]


def test_several_queues_are_paused_and_resumed_by_one_command():
    told = output_of("queues", "pause", "slow", "default", "slow", "--reason", "disk is full", "--until", "2h")
    paused = {queue["queue"]: queue["pause"] for queue in json_of("queues") if queue["paused"]}
    again = json_of("queues", "resume", "default", "slow")

    assert [line.partition(":")[0] for line in told.splitlines()] == ["slow", "default"]
    assert {name: pause["reason"] for name, pause in paused.items()} == dict.fromkeys(
        ("default", "slow"), "disk is full"
    )
    assert again == [{"queue": name, "paused": False, "changed": True} for name in ("default", "slow")]


def test_a_message_that_came_back_is_not_taken_for_finished(actors, run_worker):
    moves, _, ran = actors
    moves.send("there and back")
    output_of("queues", "relocate", "moves", "--from", "default", "--to", "slow")
    output_of("queues", "relocate", "moves", "--from", "slow", "--to", "default")
    with run_worker("default"):
        wait_for(lambda: ran == ["there and back"])


def test_a_terminal_of_80_columns_has_room_for_every_name(facilities, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    call_command("switchyard", "queues", stdout=out)
    head, *rows = (line.split() for line in out.getvalue().splitlines() if line)

    assert head == ["queue", "waiting", "scheduled", "retrying", "dead", "oldest", "busy/slots"]
    assert [row[0] for row in rows] == [queue.name for queue in declared_yard().queues]


@pytest.mark.parametrize(
    "words", [("pause", "nope"), ("pause", "default", "nope"), ("relocate", "a", "--from", "nope", "--to", "slow")]
)
def test_a_queue_that_is_not_declared_is_named_before_any_is_paused(words):
    with pytest.raises(CommandError, match="'nope' is not declared"):
        output_of("queues", *words)
    assert not any(queue["paused"] for queue in json_of("queues"))


@pytest.fixture
def family(facilities):
    """Five messages wait in ``default``, and one is scheduled in its retry lane."""
    family: QueueOperations = dramatiq.get_broker().lane("default")[0]  # type: ignore[attr-defined]
    family.enqueue([Entry(f"m{number}", b"{}") for number in range(5)])
    family.enqueue([Entry("retry", b"{}")], lane="retry", delay_ms=60_000)
    return family


def test_without_yes_it_only_counts(family):
    with pytest.raises(CommandError, match="would drop 6 messages of default; write --yes"):
        json_of("queues", "purge", "default")

    assert purge.purges(family) == [] and not AuditEntry.objects.exists()


def test_it_is_undone_within_a_minute(family):
    told = json_of("queues", "purge", "default", "--yes", "--reason", "sent twice")

    assert (told["queue"], told["purged"]) == ("default", 6)
    assert finish_moves() == 0, "there is time to undo it"
    family.enqueue([Entry("m2", b"{}")])
    undone = {"queue": "default", "put_back": 5, "left_out": 1, "purges": [told["purge"]]}
    assert json_of("queues", "purge", "default", "--undo") == undone
    assert [queue["depth"] for queue in json_of("queues") if queue["queue"] == "default"] == [5]
    with pytest.raises(CommandError, match="no purge that can be undone"):
        json_of("queues", "purge", "default", "--undo")
    acts = [(entry.act, entry.count, entry.reason) for entry in AuditEntry.objects.order_by("id")]
    assert acts == [("queue.purge", 6, "sent twice"), ("queue.purge_undo", 5, "")]
    assert AuditEntry.objects.get(act="queue.purge_undo").detail == {"purge": told["purge"], "left_out": 1}


def test_the_scheduler_drops_it_after_the_minute(family, monkeypatch):
    purge.set_aside(family, "p", by="me", undo_ms=0)

    assert (finish_moves(), purge.purges(family)) == (6, [])
    with pytest.raises(CommandError, match="no purge that can be undone"):
        json_of("queues", "purge", "default", "--undo")


def test_the_scheduler_ends_an_undo_that_was_killed(family):
    purge.set_aside(family, "p", by="me")
    family.calls.call(script("claim_purge"), [family.keys.purges], ["p", "undo"])

    assert (finish_moves(), family.calls.client.hlen(family.keys.bodies)) == (6, 6)


def test_the_jobs_of_dropped_messages_are_cancelled_in_records_and_history(facilities):
    @dramatiq.actor(actor_name="is_purged", queue_name="default")
    def is_purged() -> None:
        raise AssertionError("nothing runs here")

    job_id = is_purged.send().message_id
    family: QueueOperations = dramatiq.get_broker().lane("default")[0]  # type: ignore[attr-defined]
    purge.set_aside(family, "p", by="me", undo_ms=0)

    assert finish_moves() == 1

    record = facilities.records.read(job_id)
    assert (record.state, record.reason, record.actor, record.queue) == ("cancelled", "purged", "is_purged", "default")
    [entry] = family.calls.client.xrange(family.keys.history)
    [row] = decode_rows(entry[1][b"rows"])
    assert (row.id, row.state, row.reason, row.lane) == (job_id, "cancelled", "purged", "default")


def test_a_queue_whose_purges_cannot_be_read_does_not_hold_up_the_others(family, facilities):
    others = [dramatiq.get_broker().lane(name)[0] for name in facilities.records.queues]  # type: ignore[attr-defined]
    for other in others:
        other.enqueue([Entry("m", b"{}")])
        purge.set_aside(other, "p", by="me", undo_ms=0)
    family.calls.client.delete(others[0].keys.purges)
    family.calls.client.set(others[0].keys.purges, "no hash")

    finish_moves()

    assert [purge.purges(other) for other in others[1:]] == [[]] * (len(others) - 1)


LIST, PAGE = reverse("switchyard-queues"), reverse("switchyard-queue", args=["default"])
PAUSE, RESUME = (reverse(f"switchyard-queue-{act}", args=["default"]) for act in ("pause", "resume"))


@pytest.fixture
def waiting(facilities):
    """Ids of three messages that wait in ``default``."""

    @dramatiq.actor(actor_name="waits_here", queue_name="default")
    def waits_here() -> None:
        raise AssertionError("nothing runs here")

    return [waits_here.send().message_id for _ in range(3)]


def test_list_and_page_show_what_waits(watcher, waiting):
    listed, page = watcher.get(LIST), watcher.get(PAGE)

    assert f'href="{PAGE}"' in listed.content.decode()
    text = text_of(page)
    assert "3 waiting" in text and "start in 1 s" in text
    assert "data-away" not in listed.content.decode() + page.content.decode()
    assert "the first 3 that wait" in text and "waits_here" in text
    assert all(id_ in page.content.decode() for id_ in waiting)
    assert "Nobody: nothing runs in them." in text


def test_the_page_says_what_is_held_for_later_and_why(operator, facilities):
    @dramatiq.actor(actor_name="held_here", queue_name="default", rate_limit="10/m")
    def held_here() -> None:
        raise AssertionError("nothing runs here")

    held_here.send_with_options(delay=600_000)
    now = now_ms()
    moved = {"deferred_by": "rate_limit", "due_at": now + 60_000, "enqueued_at": now}
    for _ in range(2):
        dramatiq.get_broker().enqueue(held_here.message().copy(options=moved), delay=60_000)
    text = text_of(operator.get(PAGE))
    assert "Scheduled they break no promise until they are due Scheduled messages by actor and reason" in text
    assert re.search(
        r"Scheduled : 2 of held_here \(rate limit, 10/m\), the first due in [\w ]+ s, and others\.", text
    ), text
    assert re.search(r"held_here rate limit, 10/m 2 in [\w. ]+ s held_here delay 1 in \d+ min", text), text


def test_waits_come_from_the_jobs_that_ended_lately(watcher, facilities):
    for number in range(100):
        job_row(wait_ms=number, run_ms=1_000)
    job_row(finished_at=now_ms() - 3_600_000, wait_ms=99_000, run_ms=1_000)

    text = text_of(watcher.get(PAGE))

    assert "100 jobs that ended in the last" in text and "from the history" in text
    assert "50 ms p50; to the end 1.1 s 95 ms p95" in text


def test_rates_are_measured_between_two_looks(watcher, facilities):
    page = reverse("switchyard-queue", args=["billing"])
    queries.forget()  # what other tests of this process have read
    assert "measured between two readings" in text_of(watcher.get(page))

    wait_for(lambda: "from the broker's counters" in text_of(watcher.get(page)))


def test_pausing_asks_for_a_reason_and_shows_it(operator, waiting):
    asked = operator.get(PAUSE)
    answer = operator.post(PAUSE, {"until": "2h", "reason": "bad <deploy>"}, follow=True)

    assert "Waiting 3; from " in text_of(asked)
    text = text_of(answer)
    assert "Paused by operator" in text and "Reason: bad <deploy>." in text and "Resumes by itself in " in text
    assert "<deploy>" not in answer.content.decode()
    assert "by operator: bad <deploy> until" in text_of(operator.get(LIST))
    assert f'href="{RESUME}"' in operator.get(LIST).content.decode()
    entry = AuditEntry.objects.get()
    assert (entry.act, entry.who, entry.via, entry.reason) == ("queue.pause", "operator", "page", "bad <deploy>")

    assert "3 waiting jobs start at once" in text_of(operator.get(RESUME))
    resumed = operator.post(RESUME, follow=True)
    assert "default is resumed." in text_of(resumed) and "Pause default…" in text_of(resumed)


def test_the_list_pauses_each_queue_leads_to_what_waits_and_is_fetched_again(operator, watcher, superuser, waiting):
    page, part = operator.get(LIST).content.decode(), operator.get(LIST, {"part": "live"}).content.decode()

    assert f'data-live="{LIST}?part=live"' in page and "switchyard_operations/room.js" in page
    assert part.strip().startswith('<div class="sy-stack" data-verdict="')
    assert "<html" not in part and f'href="{PAUSE}"' in part
    assert "?state=queued&amp;queue=default" in superuser.get(LIST).content.decode()
    assert PAUSE not in watcher.get(LIST).content.decode()


def test_a_purge_asks_sets_aside_and_is_undone(operator, watcher, waiting):
    url = reverse("switchyard-queue-purge", args=["default"])
    assert watcher.get(url).status_code == watcher.post(url).status_code == 403
    assert "3 jobs of default will never run." in text_of(operator.get(url))

    answer = operator.post(url, {"shown": "3", "reason": "sent twice"}, follow=True)

    text = text_of(answer)
    assert re.search(r"3 messages set aside (just now|[\d.]+ s ago) by operator\. Reason: sent twice\.", text)
    assert "0 waiting" in text
    assert "Put 3" not in text_of(watcher.get(PAGE))
    undo = re.search(r'action="([^"]+/undo/)"', answer.content.decode())
    assert operator.get(undo[1]).status_code == 405 and watcher.post(undo[1]).status_code == 403
    undone = operator.post(undo[1], follow=True)
    assert "3 messages are put back" in text_of(undone) and "3 waiting" in text_of(undone)
    assert "cannot be put back" in text_of(operator.post(undo[1], follow=True))
    acts = [(entry.act, entry.count, entry.outcome) for entry in AuditEntry.objects.order_by("id")]
    assert acts == [("queue.purge", 3, "done"), ("queue.purge_undo", 3, "done"), ("queue.purge_undo", 0, "failed")]


@pytest.mark.parametrize("typed", ["", "100", "1010"])
def test_a_purge_over_a_hundred_has_its_count_typed(operator, facilities, typed):
    family = dramatiq.get_broker().lane("default")[0]  # type: ignore[attr-defined]
    family.enqueue([Entry(f"m{number}", b"{}") for number in range(101)])
    url = reverse("switchyard-queue-purge", args=["default"])

    refused = operator.post(url, {"shown": "101", "reason": "why", "typed": typed})
    no_reason = operator.post(url, {"shown": "101", "reason": " ", "typed": "101"})

    assert (refused.status_code, no_reason.status_code) == (422, 422)
    assert "101 waiting" in text_of(operator.get(PAGE))
    assert "101 messages set aside" in text_of(
        operator.post(url, {"shown": "101", "reason": "r", "typed": "101"}, follow=True)
    )


def test_an_actors_waiting_messages_move_to_another_queue(operator, watcher, waiting):
    url = reverse("switchyard-queue-relocate", args=["default"])
    asked = operator.get(url)
    refused = operator.post(url, {"actor": "waits_here", "to": "nowhere", "reason": "why"})
    same = operator.post(url, {"actor": "waits_here", "to": "default", "reason": "why"})
    no_reason = operator.post(url, {"actor": "waits_here", "to": "slow", "reason": ""})

    moved = operator.post(url, {"actor": "waits_here", "to": "slow", "reason": "too slow"}, follow=True)

    assert watcher.get(url).status_code == watcher.post(url).status_code == 403
    assert "waits_here: 3" in text_of(asked)
    assert [answer.status_code for answer in (refused, same, no_reason)] == [422, 422, 422]
    assert "3 messages of waits_here wait in slow now." in text_of(moved) and "0 waiting" in text_of(moved)
    entry = AuditEntry.objects.get(act="queue.relocate", outcome="done")
    assert (entry.target, entry.count, entry.detail, entry.reason) == (
        "default", 3, {"actor": "waits_here", "to": "slow"}, "too slow",
    )  # fmt: skip
