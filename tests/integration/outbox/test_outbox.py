"""Sends inside of a transaction wait for its commit; the relay sends rows that their own process could not send."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import F
from django.test import TestCase, override_settings

from switchyard.api.request_jobs import RequestJobs, request_jobs
from switchyard.broker.errors import BrokerUnavailable, PayloadTooLarge, QueueFull
from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.commands.run import run_beside
from switchyard.history.queries import were_enqueued
from switchyard.history.writer import RUNS
from switchyard.jobs.services import request_cancel, submit
from switchyard.middleware.errors import ArgumentMismatch, InvalidOption, UnknownOption
from switchyard.operations.findings.records import look_at_outbox
from switchyard.outbox import rows
from switchyard.outbox.models import OutboxRow
from switchyard.outbox.relay import Relay
from switchyard.outbox.rows import outbox_metrics
from switchyard.testing import assert_enqueued, assert_nothing_enqueued, in_memory, run_enqueued
from tests.factories.brokers import the_global_broker
from tests.factories.callers import Caller
from tests.integration.outbox.conftest import actor_on, waiting
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


WAYS = {
    "send": lambda actor: actor.send("Ada"),
    "send_with_options": lambda actor: actor.send_with_options(args=("Ada",), priority=0),
    "enqueue_many": lambda actor: actor.broker.enqueue_many([actor.message("Ada")]),
    "group": lambda actor: dramatiq.group([actor.message("Ada")], broker=actor.broker).run(),
    "pipeline": lambda actor: dramatiq.pipeline([actor.message("Ada")], broker=actor.broker).run(),
}


@pytest.fixture(params=["on_commit", "outbox"])
def sends(request) -> str:
    return str(request.param)


@pytest.mark.parametrize("way", WAYS)
def test_a_send_waits_for_the_commit(make_broker, sends, way):
    greet = actor_on(make_broker(sends))

    with transaction.atomic():
        WAYS[way](greet)
        before = waiting(greet.broker)

    assert (before, waiting(greet.broker)) == ([], ["Ada"])


def test_outside_of_a_transaction_it_is_sent_at_once(make_broker, sends):
    greet = actor_on(make_broker(sends))

    greet.send("Ada")

    assert waiting(greet.broker) == ["Ada"]


def test_a_rollback_and_a_rolled_back_savepoint_send_nothing(make_broker, sends):
    greet = actor_on(make_broker(sends))

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        greet.send("nobody")
        1 / 0  # noqa: B018
    with transaction.atomic():
        greet.send("first")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            greet.send("nobody")
            1 / 0  # noqa: B018
        greet.send("second")
        with transaction.atomic():
            greet.send("third")
        greet.send("fourth")

    assert waiting(greet.broker) == ["first", "second", "third", "fourth"]


def test_a_commit_sends_in_one_batch(make_broker, sends, monkeypatch):
    greet = actor_on(make_broker(sends))
    put, batches = greet.broker.put, list[int]()
    monkeypatch.setattr(
        greet.broker, "put", lambda messages, **how: (batches.append(len(messages)), put(messages, **how))[1]
    )

    with transaction.atomic():
        for number in range(5):
            greet.send(str(number))

    assert (batches, waiting(greet.broker)) == ([5], ["0", "1", "2", "3", "4"])


@pytest.mark.parametrize(
    ("given", "waits"),
    [
        ({"setting": "now"}, False),
        ({"setting": "now", "actor": True}, True),
        ({"setting": "on_commit", "actor": False}, False),
        ({"setting": "on_commit", "actor": True, "message": False}, False),
        ({"setting": "now", "actor": False, "message": "default"}, True),
    ],
)
def test_an_option_decides_before_the_setting(make_broker, given, waits):
    options = {"on_commit": given["actor"]} if "actor" in given else {}
    greet = actor_on(make_broker(given["setting"]), **options)

    with transaction.atomic():
        greet.send_with_options(args=("Ada",), **({"on_commit": given["message"]} if "message" in given else {}))
        before = waiting(greet.broker)

    assert (before, waiting(greet.broker)) == ([] if waits else ["Ada"], ["Ada"])


def test_what_is_refused_is_refused_at_the_send(make_broker, sends):
    greet = actor_on(make_broker(sends))
    refused = [
        (ArgumentMismatch, lambda: greet.send("Ada", "Grace")),
        (PayloadTooLarge, lambda: greet.send("x" * 2_000_000)),
        (UnknownOption, lambda: greet.send_with_options(args=("Ada",), on_comit=True)),
        (InvalidOption, lambda: greet.send_with_options(args=("Ada",), on_commit=1)),
    ]

    with transaction.atomic():
        for error, send in refused:
            with pytest.raises(error):
                send()

    assert waiting(greet.broker) == []


def test_a_full_queue_refuses_at_the_send(make_broker):
    greet = actor_on(make_broker())
    for number in range(10):
        greet.send(str(number))

    with transaction.atomic(), pytest.raises(QueueFull, match="holds 10 messages of at most 10"):
        greet.send("one more")


def test_a_unique_send_takes_its_key_at_the_commit(make_broker, sends):
    greet = actor_on(make_broker(sends), unique_key=lambda name: name)

    with transaction.atomic():
        greet.send("Ada")
        other = greet.send_with_options(args=("Ada",), on_commit=False)
        before = waiting(greet.broker)

    family, _ = greet.broker.lane("default")
    ids = family.calls.command("LRANGE", family.keys.waiting("live")[1], 0, -1)
    assert (before, ids) == (["Ada"], [other.message_id.encode()])


def test_a_delay_is_counted_from_the_send(make_broker, sends):
    greet = actor_on(make_broker(sends))

    with transaction.atomic():
        message = greet.send_with_options(args=("Ada",), delay=60_000)

    family, _ = greet.broker.lane("default")
    due = float(family.calls.command("ZSCORE", family.keys.due("live"), message.message_id))
    assert due == pytest.approx(message.options["due_at"], abs=1_000)


def test_arguments_keep_their_types(make_broker, sends):
    broker = make_broker(sends)

    @dramatiq.actor(broker=broker, queue_name="default")
    def remind(on: date) -> None: ...

    with transaction.atomic():
        remind.send(date(2026, 11, 28))

    assert waiting(broker) == ["2026-11-28"]


def test_without_rows_a_broker_that_is_away_at_the_commit_is_told(make_broker, monkeypatch):
    greet, urgent = (actor_on(broker := make_broker()), actor_on(broker, "hurry", "urgent"))
    put = broker.put

    def away(messages: Any, **how: Any) -> Any:
        if messages[0].queue_name == "default":
            raise BrokerUnavailable("enqueue", "timeout")
        return put(messages, **how)

    monkeypatch.setattr(broker, "put", away)

    with pytest.raises(BrokerUnavailable), transaction.atomic():
        Group.objects.create(name="committed")
        greet.send("lost")
        urgent.send("sent nevertheless")

    assert Group.objects.filter(name="committed").exists()
    assert (waiting(broker), waiting(broker, "urgent")) == ([], ["sent nevertheless"])


@in_memory()
class InMemory(TestCase):
    """In a ``TestCase`` what waits for a commit counts as sent once its block has ended."""

    def setUp(self) -> None:
        @dramatiq.actor(queue_name="default", actor_name="make_group")
        def make_group(name: str) -> None:
            Group.objects.create(name=name)

        self.make_group = make_group

    def test_assert_enqueued_sees_what_waits(self) -> None:
        with transaction.atomic():
            self.make_group.send("later")
            assert_nothing_enqueued()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            self.make_group.send("never")
            1 / 0  # noqa: B018

        assert_enqueued(self.make_group, args=("later",), count=1)
        run_enqueued()

        assert Group.objects.filter(name="later").exists()

    def test_a_send_of_the_test_itself_goes_at_once(self) -> None:
        self.make_group.send("now")

        assert len(self.make_group.broker.waiting) == 1

    def test_where_the_setting_says_now_nothing_waits(self) -> None:
        with override_settings(SWITCHYARD={"SENDS": "now"}), in_memory(), transaction.atomic():
            self.make_group.send("now")
            assert_enqueued(self.make_group)


AWAY = BrokerUnavailable("enqueue", "timeout")


def nobody(job_ids: Any, queue: str) -> set[str]:
    return set()


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    """Relay rows of any age."""
    monkeypatch.setattr("switchyard.outbox.relay.LEFT_TO_SENDER_MS", -1_000)


@pytest.fixture
def broker(make_broker) -> Iterator[RedisBroker]:
    broker = make_broker("outbox")
    with the_global_broker(broker):
        yield broker


@pytest.fixture
def greet(broker) -> dramatiq.Actor:
    return actor_on(broker)


@pytest.fixture
def relay(broker) -> Relay:
    return Relay(nobody)


@contextmanager
def nothing_sent(broker: RedisBroker) -> Iterator[None]:
    """Commit as if the process died before it sent anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("switchyard.outbox.sends.CommitSends.flush", lambda self, alias, waiting: None)
        yield


def send_and_die(broker: RedisBroker, *sends: tuple[Any, str]) -> None:
    with nothing_sent(broker), transaction.atomic():
        for actor, name in sends:
            actor.send(name)


@contextmanager
def fails_for(broker: RedisBroker, error: Exception | type[Exception], *queues: str) -> Iterator[list[str]]:
    """Have sends to queues fail; yield the queue of each send."""
    put, asked = broker.put, list[str]()

    def fail(messages: Any, **how: Any) -> Any:
        asked.append(messages[0].queue_name)
        if messages[0].queue_name in queues:
            raise error
        return put(messages, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker, "put", fail)
        yield asked


@contextmanager
def relaying(*relays: Relay) -> Iterator[list[threading.Thread]]:
    """Run relays in threads, which are stopped at the end."""
    stops = [threading.Event() for _ in relays]
    threads = [threading.Thread(target=each.run, args=(stop,)) for each, stop in zip(relays, stops, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for stop, thread in zip(stops, threads, strict=True):
            stop.set()
            thread.join(10)


def left() -> list[str]:
    return [rows.message_of(row).args[0] for row in OutboxRow.objects.all()]


def test_a_row_is_gone_once_the_broker_has_its_message(broker, greet):
    with transaction.atomic():
        greet.send("Ada")
        before = left()

    assert (before, left(), waiting(broker)) == (["Ada"], [], ["Ada"])


def test_what_was_left_is_sent_in_order(broker, greet, relay):
    send_and_die(broker, *((greet, str(number)) for number in range(7)))
    before = left(), waiting(broker)

    relay.step()

    names = [str(number) for number in range(7)]
    assert before == (names, [])
    assert (left(), waiting(broker)) == ([], names)


def test_a_broker_that_is_away_at_the_commit_costs_nothing(broker, relay, monkeypatch):
    greet, asked = actor_on(broker), list[float]()

    def away(messages: Any, *, delay: Any, budget_s: float = 2.0) -> Any:
        asked.append(budget_s)
        raise BrokerUnavailable("enqueue", "timeout")

    with monkeypatch.context() as patch:
        patch.setattr(broker, "put", away)
        for name in ("Ada", "Grace"):
            with transaction.atomic():
                greet.send(name)
        relay.step()
        during = left()
    relay.step()

    assert asked[0] < 1.0
    assert len(asked) == 2  # one by the first commit, one by the relay: the second commit left it to that
    assert (during, left(), waiting(broker)) == (["Ada", "Grace"], [], ["Ada", "Grace"])


def test_a_row_that_was_sent_already_is_one_job(broker, greet, relay):
    send_and_die(broker, (greet, "Ada"))
    [row] = OutboxRow.objects.all()
    broker.put([rows.message_of(row)])

    relay.step()

    assert (left(), waiting(broker)) == ([], ["Ada"])


def test_a_job_that_is_known_is_not_sent_again_whatever_the_broker_forgot(broker, greet):
    send_and_die(broker, (greet, "ended long ago"), (greet, "new"))
    first, _ = OutboxRow.objects.values_list("job_id", flat=True)

    Relay(lambda job_ids, queue: {first} & set(job_ids)).step()

    assert (left(), waiting(broker)) == ([], ["new"])


def test_the_history_and_the_broker_tell_which_jobs_are_known(broker, greet):
    sent = greet.send("Ada")

    for queue in ("", "default", "urgent"):  # one that was moved is known too
        assert were_enqueued([sent.message_id, "2d4b4c35-9d5c-4f0e-9b5c-3a8f0a3b9c11"], queue) == {sent.message_id}


def test_a_full_queue_keeps_its_rows_and_others_go_on(broker, relay):
    greet, hurry = actor_on(broker), actor_on(broker, "hurry", "urgent")
    for number in range(8):
        greet.send(f"there {number}")
    send_and_die(broker, *((greet, str(number)) for number in range(4)), (hurry, "urgent"))

    relay.step()

    assert (left(), waiting(broker, "urgent")) == (["2", "3"], ["urgent"])
    broker.flush("default")
    relay.step()
    assert (left(), waiting(broker)) == ([], ["2", "3"])


def test_a_queue_whose_key_is_refused_keeps_its_rows_and_others_go_on(broker, monkeypatch):
    monkeypatch.setattr("switchyard.outbox.relay.AT_ONCE", 2)
    greet, hurry = actor_on(broker), actor_on(broker, "hurry", "urgent")
    send_and_die(broker, (greet, "Ada"), (greet, "Grace"), (hurry, "urgent 1"), (hurry, "urgent 2"))
    family, _ = broker.lane("default")
    family.calls.command("SET", family.keys.bodies, "of another program")
    relay = Relay(were_enqueued)

    relay.step()
    during = left(), waiting(broker, "urgent")
    family.calls.command("DEL", family.keys.bodies)
    relay.step()

    assert during == (["Ada", "Grace"], ["urgent 1", "urgent 2"])
    assert (left(), waiting(broker)) == ([], ["Ada", "Grace"])


@pytest.mark.parametrize("servers", [1, 2])
def test_a_server_that_is_away_is_asked_once_and_others_are_as_well(broker, relay, monkeypatch, servers):
    greet, hurry = actor_on(broker), actor_on(broker, "hurry", "urgent")
    send_and_die(broker, (greet, "Ada"), (hurry, "urgent"), (greet, "Grace"))
    if servers == 2:
        monkeypatch.setattr(facilities(broker).records.calls, "place_of", lambda key: key)
    with fails_for(broker, AWAY, "default") as asked:
        relay.step()

    assert asked == ["default", "urgent"][:servers]
    assert left() == (["Ada", "Grace"] if servers == 2 else ["Ada", "urgent", "Grace"])


def test_a_message_that_is_refused_for_good_is_a_dead_letter(broker, greet, relay):
    send_and_die(broker, (greet, "gone"), (greet, "Ada"), (greet, "broken"))
    gone, _, broken = OutboxRow.objects.all()
    OutboxRow.objects.filter(pk=gone.pk).update(queue="of-last-week")
    OutboxRow.objects.filter(pk=broken.pk).update(body=b"no message")

    relay.step()

    letters = {letter.id: letter for letter in facilities(broker).transport.dead_letters("default").items}
    assert (left(), waiting(broker)) == ([], ["Ada"])
    assert letters.keys() == {gone.job_id, broken.job_id}
    assert (letters[gone.job_id].exception, letters[gone.job_id].reason) == ("QueueNotFound", "permanent")
    assert letters[gone.job_id].message["args"] == ("gone",) or letters[gone.job_id].message["args"] == ["gone"]


def test_a_row_that_fails_as_nobody_foresaw_stays(broker, relay):
    greet, hurry = actor_on(broker), actor_on(broker, "hurry", "urgent")
    send_and_die(broker, (greet, "Ada"), (hurry, "urgent"), (greet, "Grace"))
    with fails_for(broker, ZeroDivisionError, "default"):
        relay.step()
    during = left(), waiting(broker, "urgent")
    relay.step()

    assert during == (["Ada", "Grace"], ["urgent"])
    assert (left(), waiting(broker)) == ([], ["Ada", "Grace"])


def test_rows_of_a_key_wait_for_an_earlier_one_and_others_do_not(broker, greet, relay, monkeypatch):
    monkeypatch.setattr(rows, "order_key", lambda message, actor: message.args[0][0])
    monkeypatch.setattr("switchyard.outbox.relay.LEFT_TO_SENDER_MS", 60_000)
    send_and_die(broker, (greet, "a1"), (greet, "b1"))  # another process has the first in hand

    with transaction.atomic():
        for name in ("a2", "c1"):
            greet.send(name)
    OutboxRow.objects.exclude(pk=OutboxRow.objects.earliest("pk").pk).update(created_ms=0)
    relay.step()
    before = waiting(broker)
    OutboxRow.objects.update(created_ms=0)
    relay.step()

    assert before == ["c1", "b1"]
    assert (left(), waiting(broker)) == ([], ["c1", "b1", "a1", "a2"])


def test_the_key_is_the_value_of_the_argument_that_the_actor_names(broker, greet):
    greet.options["ordered_by"] = "name"

    assert rows.order_key(greet.message("Ada"), greet) == rows.order_key(greet.message(name="Ada"), greet)
    assert rows.order_key(greet.message("Ada"), greet) != rows.order_key(greet.message("Grace"), greet)
    assert rows.order_key(greet.message("Ada"), None) == ""


def test_a_delay_that_is_over_is_none(broker, greet, relay):
    with nothing_sent(broker), transaction.atomic():
        greet.send_with_options(args=("over",), delay=60_000)
        later = greet.send_with_options(args=("later",), delay=600_000)
    OutboxRow.objects.exclude(job_id=later.message_id).update(due_ms=1)

    relay.step()

    family, _ = broker.lane("default")
    due = family.calls.command("ZSCORE", family.keys.due("live"), later.message_id)
    assert waiting(broker) == ["over"]
    assert float(due) == pytest.approx(later.options["due_at"], abs=5_000)


def test_a_row_of_a_clock_that_was_ahead_is_sent(broker, relay, monkeypatch):
    monkeypatch.setattr("switchyard.outbox.relay.LEFT_TO_SENDER_MS", 60_000)
    send_and_die(broker, (actor_on(broker), "Ada"))
    OutboxRow.objects.update(created_ms=F("created_ms") + 86_400_000)

    relay.step()

    assert (left(), waiting(broker)) == ([], ["Ada"])


def test_a_full_outbox_refuses(broker, greet, monkeypatch):
    monkeypatch.setattr(rows, "MOST_ROWS", 3)
    monkeypatch.setattr(rows, "COUNT_EVERY_S", -1.0)
    send_and_die(broker, *((greet, str(number)) for number in range(3)))

    with pytest.raises(QueueFull, match="holds 3 messages of at most 3"), transaction.atomic():
        greet.send("one more")

    assert (left(), rows.figures()[0]) == (["0", "1", "2"], 3)


def test_a_relay_runs_beside_the_history_and_stops(broker, greet):
    with relaying(Relay(nobody)) as [thread]:
        send_and_die(broker, (greet, "Ada"))
        wait_for(lambda: waiting(broker) == ["Ada"])

    assert not thread.is_alive()


@pytest.mark.database
def test_two_relays_send_each_row_once(broker):
    names = [str(number) for number in range(9)]
    hurry = actor_on(broker, "hurry", "urgent")
    send_and_die(broker, *((hurry, name) for name in names))
    with relaying(Relay(nobody), Relay(nobody)):
        wait_for(lambda: left() == [])

    assert sorted(waiting(broker, "urgent")) == names


def test_groups_and_pipelines_are_relayed_with_their_steps(broker, greet, relay):
    with nothing_sent(broker), transaction.atomic():
        dramatiq.pipeline([greet.message("first"), greet.message("second")], broker=broker).run()

    relay.step()

    family, _ = broker.lane("default")
    [id_] = family.calls.command("LRANGE", family.keys.waiting("live")[1], 0, -1)
    message = facilities(broker).transport.find_message("default", id_.decode())
    assert message.options["pipe_target"]["args"] == ["second"]


def test_the_admin_lists_what_is_not_sent_yet_with_its_age_and_reason(broker, admin_client):
    greet, in_turn = actor_on(broker), actor_on(broker, "in_turn", ordered_by="name")
    send_and_die(broker, (greet, "anna"), (in_turn, "ben"), (in_turn, "ben"))
    OutboxRow.objects.update(created_ms=F("created_ms") - 90_000)

    text = admin_client.get("/admin/switchyard_outbox/outboxrow/").content.decode()

    assert text.count("room in its queue, the broker, or the relay") == 2
    assert text.count("an earlier message of its order") == 1
    assert text.count("1 min 3") == 3
    assert all(row.job_id in text for row in OutboxRow.objects.all())
    assert "ben" not in text


def test_a_small_yard_relays_as_the_history_process_does(monkeypatch):
    runs: list[Any] = []
    monkeypatch.setattr("switchyard.commands.run.run_until_signal", lambda *given, **options: runs.extend(given))

    run_beside()

    assert set(runs) > set(RUNS)


EMAIL = {"to": "ada@mail.example", "template": "welcome"}


@contextmanager
def broker_away() -> Iterator[None]:
    def away(*args: Any, **options: Any) -> Any:
        raise AWAY

    broker = dramatiq.get_broker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker, "put", away)
        patch.setattr(broker.switchyard.records, "states", away)
        yield
    broker.postpone._left_until_s = 0.0


def test_a_job_is_accepted_while_the_broker_is_away_and_sent_later(facilities):
    caller = Caller()

    with broker_away():
        answer = caller.post("/emails", EMAIL)
    job_id = answer.json()["job_id"]
    during = caller.get(f"/jobs/{job_id}").json()
    Relay(nobody).step()
    after = caller.get(f"/jobs/{job_id}").json()

    assert answer.status_code == 202
    assert (during["state"], during["reason"], during["actor"]) == ("scheduled", "outbox", "send_welcome_mail")
    assert (after["state"], after["reason"]) == ("queued", None)


def test_a_key_makes_one_job_of_two_requests_while_the_broker_is_away(facilities):
    caller = Caller()
    caller.headers["Idempotency-Key"] = "one"

    with broker_away():
        first, second = (caller.post("/emails", EMAIL) for _ in range(2))
    Relay(nobody).step()

    assert (first.status_code, second.json()) == (202, first.json())
    assert facilities.transport.stats("default").live.waiting == 1


def test_a_job_in_the_outbox_can_be_cancelled(facilities):
    with broker_away():
        job_id = Caller().post("/emails", EMAIL).json()["job_id"]

    answer = request_cancel(job_id)
    Relay(nobody).step()

    assert answer == "cancelled"
    assert (OutboxRow.objects.count(), facilities.transport.stats("default").live.waiting) == (0, 0)


def test_a_full_outbox_is_answered_with_429(facilities, monkeypatch):
    monkeypatch.setattr(rows, "MOST_ROWS", 1)
    monkeypatch.setattr(rows, "COUNT_EVERY_S", -1.0)
    caller = Caller()

    with broker_away():
        accepted, refused = (caller.post("/emails", EMAIL) for _ in range(2))

    assert (accepted.status_code, refused.status_code) == (202, 429)
    assert int(refused["Retry-After"]) > 0
    assert refused.json()["outcome"] == "not_enqueued"


def test_a_unique_key_that_is_held_answers_with_the_holders_id(make_broker):
    greet = actor_on(make_broker("outbox"), unique_key=lambda name: name)

    with request_jobs(RequestJobs()) as request:
        first, second = submit(greet, "Ada"), submit(greet, "Ada")

    assert (first, request.job_ids) == (second, [first, first])


def test_depth_and_age_are_metrics_and_a_finding(facilities, monkeypatch):
    with broker_away():
        Caller().post("/emails", EMAIL)
    [calm] = look_at_outbox()
    OutboxRow.objects.update(created_ms=1)
    found = {sample.name: sample.value for family in outbox_metrics() for sample in family.samples}
    [late] = look_at_outbox()
    monkeypatch.setattr("switchyard.operations.findings.records.MOST_ROWS", 1)
    [full] = look_at_outbox()

    assert (calm.severity, late.severity, full.severity) == ("ok", "warning", "error")
    assert late.seen.startswith("1 message waits in the outbox, the oldest for ")
    assert found["switchyard_outbox_rows"] == 1
    assert found["switchyard_outbox_oldest_seconds"] > 1_000_000
