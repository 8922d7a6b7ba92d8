from __future__ import annotations

import io
import traceback
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from django.core.management import CommandError, call_command

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.dead_letters.models import DeadLetter
from switchyard.middleware.crashes import Poison
from switchyard.middleware.logs import printable
from tests.factories.commands import json_of, output_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db


def test_list_shows_letters_that_have_no_row_yet(bury: Callable[..., Letter]) -> None:
    made = bury()

    assert made.id in output_of("deadletters", "list")
    assert [item["id"] for item in json_of("deadletters", "list")] == [made.id]


def test_list_filters_by_queue_group_and_state(bury: Callable[..., Letter]) -> None:
    one = bury(queue="webhook", fingerprint="aaaa")
    two = bury()

    assert [item["id"] for item in json_of("deadletters", "list", "--queue", "webhook")] == [one.id]
    assert [item["id"] for item in json_of("deadletters", "list", "--group", two.fingerprint)] == [two.id]
    assert json_of("deadletters", "list", "--state", "discarded") == []


@pytest.mark.parametrize("name", ["[/]", "[link=file:///etc/passwd]here", "\x1b[2Jgone", "\x9b2J\u202eenog"])
def test_a_name_that_somebody_made_up_is_listed_as_it_is(bury: Callable[..., Letter], name: str) -> None:
    bury(actor=name)

    assert printable(name) in output_of("deadletters", "list")


def test_show_tells_everything_and_drives_no_terminal(bury: Callable[..., Letter]) -> None:
    made = bury(error="\x1b]0;evil\x07 red \x1b[31m")

    text = output_of("deadletters", "show", made.id)

    assert "Traceback (most recent call last)" in text
    assert "\x1b" not in text and "\\x1b]0;evil" in text
    assert json_of("deadletters", "show", made.id)["payload"]["arguments"] == {"number": 7}


def test_requeue_and_discard_by_id(bury: Callable[..., Letter], facilities: Facilities) -> None:
    one, two, three = bury(), bury(), bury()

    assert "Requeued 2 dead letters." in output_of("deadletters", "requeue", one.id, two.id, one.id)
    assert json_of("deadletters", "discard", three.id, "--reason", "old")["done"] == [three.id]

    stats = facilities.transport.stats("default")
    assert (stats.dead, stats.live.waiting) == (0, 2)
    assert "(shell)" in DeadLetter.objects.get(message_id=three.id).history[0]["by"]


def test_requeue_by_group(bury: Callable[..., Letter]) -> None:
    made = {bury().id for _ in range(3)}
    output_of("deadletters", "list")

    assert set(json_of("deadletters", "requeue", "--group", "f00dfacef00dface")["done"]) == made


@pytest.mark.parametrize(("verb", "past"), [("requeue", "Requeued"), ("discard", "Discarded")])
def test_letters_of_a_time_are_moved_and_the_others_stay(bury: Callable[..., Letter], verb: str, past: str) -> None:
    now = now_ms()
    old, wanted, other = bury(died_at=now - 7_200_000), bury(died_at=now - 600_000), bury(fingerprint="other")

    assert (
        output_of("deadletters", verb, "--group", wanted.fingerprint, "--since", "1h").strip()
        == f"{past} 1 dead letter."
    )
    states = dict(DeadLetter.objects.values_list("message_id", "is_open"))
    assert (states[wanted.id], states[old.id], states[other.id]) == (0, 1, 1)

    assert output_of("deadletters", verb, "--until", "1h").strip() == f"{past} 1 dead letter."
    with pytest.raises(CommandError, match="no open letter"):
        output_of("deadletters", verb, "--until", "1h")
    with pytest.raises(CommandError, match="is not a time"):
        output_of("deadletters", verb, "--since", "noon")


def test_unknown_id_is_named_and_fails_while_the_others_are_done(bury: Callable[..., Letter]) -> None:
    made, err = bury(), io.StringIO()

    with pytest.raises(SystemExit) as exit_:
        call_command("switchyard", "deadletters", "requeue", made.id, "nope", stdout=io.StringIO(), stderr=err)

    assert exit_.value.code == 1
    assert "'nope'" in err.getvalue()
    assert DeadLetter.objects.get().state == "requeued"


@pytest.mark.django_db(transaction=True)
def test_quarantined_messages_are_listed_with_their_bytes(
    facilities: Facilities, run_worker: Callable[..., Any]
) -> None:
    broker = dramatiq.get_broker()
    assert isinstance(broker, RedisBroker)
    broker.families["default"].enqueue([Entry("broken", b"\x00<b>no message</b>")])

    with run_worker("default"):
        wait_for(lambda: facilities.transport.stats("default").quarantined)

    text, items = (output_of("deadletters", "list", "--quarantined"), json_of("deadletters", "list", "--quarantined"))
    assert "00 3c 62 3e 6e 6f" in text and ".<b>no message</" in text
    assert [bytes.fromhex(item["raw_hex"]) for item in items] == [b"\x00<b>no message</b>"]


@pytest.mark.django_db(transaction=True)
def test_quarantined_messages_are_requeued_after_an_upgrade_or_discarded(
    facilities: Facilities, run_worker: Callable[..., Any]
) -> None:
    broker = dramatiq.get_broker()
    assert isinstance(broker, RedisBroker)
    body = b'{"actor":"send_welcome_mail","sent_at":1,"options":{"newer":7}}'
    broker.families["default"].enqueue([Entry("one", body), Entry("two", body), Entry("three", b"{")])

    with run_worker("default"):
        wait_for(lambda: facilities.transport.stats("default").quarantined == 3)
    with pytest.raises(SystemExit):
        output_of("deadletters", "requeue", "--quarantined", "one", "three", "unknown")
    broker.actor_options.add("newer")
    try:
        requeued = output_of("deadletters", "requeue", "--quarantined", "one")
    finally:
        broker.actor_options.discard("newer")
    discarded = output_of("deadletters", "discard", "--quarantined", "two", "three")

    assert (requeued.strip(), discarded.strip()) == (
        "Requeued 1 quarantined message.",
        "Discarded 2 quarantined messages.",
    )
    assert facilities.transport.stats("default").live.waiting == 1
    assert facilities.transport.stats("default").quarantined == 0


@pytest.mark.parametrize("arguments", [("requeue",), ("discard", "ID", "--group", "FP")])
def test_wrong_arguments_end_with_2(arguments: tuple[str, ...], facilities: Facilities) -> None:
    with pytest.raises(CommandError) as caught:
        output_of("deadletters", *arguments)

    assert caught.value.returncode == 2


CAUSE = "killed by SIGSEGV in ways.py:43 crash, pid 7, at most 83 MB\nabout to crash <at 3>\nreading"
TOLD = (
    "killed by SIGSEGV in ways.py:43 crash, pid 7, at most 83 MB",
    "Actor: fail_always",
    "Fingerprint of its arguments: 0123456789abcdef",
    "last log lines:\nabout to crash <at 3>\nreading",
)


@pytest.fixture
def poisoned(bury: Callable[..., Letter]) -> Letter:
    """A letter as the middleware writes it."""
    error = Poison("fail_always", 3, CAUSE, arguments="0123456789abcdef")
    told: dict[str, Any] = {"traceback": "".join(traceback.format_exception(error)), "error": str(error)}
    return bury(reason="poison", exception="Poison", **told)


def test_command_shows_how_the_worker_of_a_poison_message_ended(poisoned: Letter) -> None:
    shown = output_of("deadletters", "show", poisoned.id)

    assert [line for line in TOLD if line not in shown] == []
