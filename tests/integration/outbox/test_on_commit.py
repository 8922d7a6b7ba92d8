"""Sends inside of a transaction wait for its commit."""

from datetime import date
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import TestCase, override_settings

from switchyard.broker.errors import BrokerUnavailable, PayloadTooLarge, QueueFull
from switchyard.middleware.errors import ArgumentMismatch, InvalidOption, UnknownOption
from switchyard.testing import assert_enqueued, assert_nothing_enqueued, in_memory, run_enqueued
from tests.integration.outbox.conftest import actor_on, waiting

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
