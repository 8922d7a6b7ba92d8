import io
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import dramatiq
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from switchyard.audit.services import Who
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import NotFound
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.operations import Entry
from switchyard.dead_letters import acts, projection, queries
from switchyard.dead_letters.models import DeadLetter
from switchyard.middleware.crashes import Poison
from switchyard.middleware.logs import printable
from tests.factories.commands import json_of, output_of
from tests.factories.letters import discard, requeue
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
OPERATOR = Who("a.lind", "page")


@pytest.fixture
def made(bury):
    """A letter with its row."""
    made = bury()
    projection.project_or_log(made)
    return made


def waiting(facilities: Facilities) -> int:
    return facilities.transport.stats("default").live.waiting


def test_requeue_moves_the_letter_once_and_says_who(made, facilities, operator):
    act = acts.act_on(made.id, "requeue", by=operator.username, reason="mended")

    row = DeadLetter.objects.get()
    assert (act, row.state, row.state_by, row.claim_token) == ("", "requeued", "a.lind", "")
    assert [(entry["act"], entry["by"], entry["note"]) for entry in row.history] == [("requeue", "a.lind", "mended")]
    assert "is requeued already" in acts.act_on(made.id, "requeue", by="a.lind")
    assert (waiting(facilities), facilities.transport.stats("default").dead) == (1, 0)


def test_discard_drops_the_letter_and_keeps_the_row(bury, facilities, operator):
    assert acts.act_on(bury().id, "discard", by=operator.username, reason="duplicate") == ""

    assert DeadLetter.objects.get().state == "discarded"
    assert (facilities.transport.stats("default").dead, waiting(facilities)) == (0, 0)


def test_acknowledged_letter_stays_and_can_still_be_requeued(bury, facilities, operator):
    made = bury()

    assert acts.act_on(made.id, "acknowledge", by=operator.username) == ""
    assert acts.act_on(made.id, "acknowledge", by=operator.username) != ""
    assert facilities.transport.stats("default").dead == 1

    assert acts.act_on(made.id, "requeue", by=operator.username) == ""


def test_letter_that_something_else_took_is_missing(made, facilities):
    discard(facilities.transport, "default", made.id)

    assert acts.act_on(made.id, "requeue", by="a.lind") != ""
    assert (DeadLetter.objects.get().state, waiting(facilities)) == ("missing", 0)


def test_unknown_ids_and_groups_are_refused(facilities):
    with pytest.raises(NotFound, match="'nope'"):
        acts.act_on("nope", "requeue", by="a.lind")
    with pytest.raises(NotFound, match="'nope'"):
        acts.apply("requeue", [], who=OPERATOR, group="nope")


def test_group_is_requeued_oldest_first_up_to_the_limit(bury, facilities):
    made = [bury(died_at=1_800_000_000_000 + index) for index in range(5)]
    bury(fingerprint="another")
    acts.reconcile_all()

    oldest = list(queries.listing(fingerprint="f00dfacef00dface").order_by("died_at")[:3])
    outcome = acts.apply("requeue", oldest, who=OPERATOR, group="f00dfacef00dface")

    assert (outcome.done, waiting(facilities)) == (tuple(letter.id for letter in made[:3]), 3)


@pytest.mark.django_db(transaction=True)
def test_two_operators_at_once_requeue_a_letter_once(bury, facilities):
    made = [bury() for _ in range(5)]
    acts.reconcile_all()
    barrier = threading.Barrier(2)

    def click(name: str, act: acts.ActName) -> list[bool]:
        done = []
        try:
            for letter in made:
                barrier.wait(30)
                done.append(acts.act_on(letter.id, act, by=name) == "")
        finally:
            connection.close()
        return done

    with ThreadPoolExecutor(2) as pool:
        requeued = pool.submit(click, "a.lind", "requeue")
        discarded = pool.submit(click, "m.keller", "discard")

    pairs = list(zip(requeued.result(), discarded.result(), strict=True))
    assert all(pair in ((True, False), (False, True)) for pair in pairs)
    assert waiting(facilities) == sum(requeue for requeue, _ in pairs)
    assert facilities.transport.stats("default").dead == 0
    states = {row.message_id: row.state for row in DeadLetter.objects.all()}
    assert [states[letter.id] for letter in made] == ["requeued" if requeue else "discarded" for requeue, _ in pairs]


def interrupt(message_id: str, act: str, *, seconds_ago: int = 120) -> None:
    """Leave the row as a process does that was killed after it claimed the row."""
    DeadLetter.objects.filter(message_id=message_id).update(
        claim_token="dead-process", claim_act=act, claim_by="a.lind",
        claim_at=timezone.now() - timedelta(seconds=seconds_ago),
    )  # fmt: skip


def test_act_killed_before_the_letter_moved_changes_nothing(made, facilities):
    interrupt(made.id, "requeue")

    report = acts.reconcile_all()

    row = DeadLetter.objects.get()
    assert (report["settled"], row.state, row.claim_token) == (1, "new", "")
    assert "interrupted before the letter moved" in row.history[-1]["note"]
    assert acts.act_on(made.id, "requeue", by="m.keller") == ""


@pytest.mark.parametrize(("act", "state"), [("requeue", "requeued"), ("discard", "discarded")])
def test_act_killed_after_the_letter_moved_is_finished(made, facilities, act, state):
    {"requeue": requeue, "discard": discard}[act](facilities.transport, "default", made.id)
    interrupt(made.id, act)

    acts.reconcile_all()
    acts.reconcile_all()

    row = DeadLetter.objects.get()
    assert (row.state, row.state_by, row.claim_token, len(row.history)) == (state, "a.lind", "", 1)


def test_act_just_begun_elsewhere_is_not_done_twice(made, facilities):
    interrupt(made.id, "requeue", seconds_ago=1)

    assert "a.lind has begun to requeue" in acts.act_on(made.id, "discard", by="m.keller")
    assert facilities.transport.stats("default").dead == 1


def test_old_claim_is_settled_by_whoever_acts_next(made, facilities):
    interrupt(made.id, "requeue")

    assert acts.act_on(made.id, "discard", by="m.keller") == ""

    assert DeadLetter.objects.get().state == "discarded"


@pytest.mark.parametrize("act", ["requeue", "discard", "acknowledge"])
def test_reason_is_written_without_what_postgresql_cannot_store(bury, act):
    result = acts.act_on(bury().id, act, by="b.lind", reason="why\0")

    assert result == "" and DeadLetter.objects.get().history[-1]["note"] == "why\\x00"


def test_list_shows_letters_that_have_no_row_yet_and_filters_by_queue_group_and_state(bury):
    one = bury(queue="webhook", fingerprint="aaaa")

    assert one.id in output_of("deadletters", "list")
    assert [item["id"] for item in json_of("deadletters", "list")] == [one.id]
    two = bury()
    assert [item["id"] for item in json_of("deadletters", "list", "--queue", "webhook")] == [one.id]
    assert [item["id"] for item in json_of("deadletters", "list", "--group", two.fingerprint)] == [two.id]
    assert json_of("deadletters", "list", "--state", "discarded") == []


@pytest.mark.parametrize("name", ["[/]", "[link=file:///etc/passwd]here", "\x1b[2Jgone", "\x9b2J\u202eenog"])
def test_a_name_that_somebody_made_up_is_listed_as_it_is(bury, name):
    bury(actor=name)

    assert printable(name) in output_of("deadletters", "list")


def test_show_tells_everything_and_drives_no_terminal(bury):
    made = bury(error="\x1b]0;evil\x07 red \x1b[31m")

    text = output_of("deadletters", "show", made.id)

    assert "Traceback (most recent call last)" in text and "\x1b" not in text and "\\x1b]0;evil" in text
    assert json_of("deadletters", "show", made.id)["payload"]["arguments"] == {"number": 7}


def test_requeue_and_discard_by_id(bury, facilities):
    one, two, three = bury(), bury(), bury()

    assert "Requeued 2 dead letters." in output_of("deadletters", "requeue", one.id, two.id, one.id)
    assert json_of("deadletters", "discard", three.id, "--reason", "old")["done"] == [three.id]

    stats = facilities.transport.stats("default")
    assert (stats.dead, stats.live.waiting) == (0, 2)
    assert "(shell)" in DeadLetter.objects.get(message_id=three.id).history[0]["by"]


@pytest.mark.parametrize(("verb", "past"), [("requeue", "Requeued"), ("discard", "Discarded")])
def test_letters_of_a_time_are_moved_and_the_others_stay(bury, verb, past):
    now = now_ms()
    old, wanted, twin = bury(died_at=now - 7_200_000), bury(died_at=now - 600_000), bury(died_at=now - 600_000)
    other = bury(fingerprint="other")

    said = output_of("deadletters", verb, "--group", wanted.fingerprint, "--since", "1h").strip()
    assert said == f"{past} 2 dead letters."
    states = dict(DeadLetter.objects.values_list("message_id", "is_open"))
    assert [states[each.id] for each in (wanted, twin, old, other)] == [0, 0, 1, 1]

    assert output_of("deadletters", verb, "--until", "1h").strip() == f"{past} 1 dead letter."
    with pytest.raises(CommandError, match="no open letter"):
        output_of("deadletters", verb, "--until", "1h")
    with pytest.raises(CommandError, match="is not a time"):
        output_of("deadletters", verb, "--since", "noon")


def test_unknown_id_is_named_and_fails_while_the_others_are_done(bury):
    made, err = bury(), io.StringIO()

    with pytest.raises(SystemExit) as exit_:
        call_command("switchyard", "deadletters", "requeue", made.id, "nope", stdout=io.StringIO(), stderr=err)

    assert exit_.value.code == 1
    assert "'nope'" in err.getvalue()
    assert DeadLetter.objects.get().state == "requeued"


@pytest.mark.django_db(transaction=True)
def test_quarantined_messages_are_listed_with_their_bytes(facilities, run_worker):
    broker = dramatiq.get_broker()
    broker.families["default"].enqueue([Entry("broken", b"\x00<b>no message</b>")])

    with run_worker("default"):
        wait_for(lambda: facilities.transport.stats("default").quarantined)

    text, items = (of("deadletters", "list", "--quarantined") for of in (output_of, json_of))
    assert "00 3c 62 3e 6e 6f" in text and ".<b>no message</" in text
    assert [bytes.fromhex(item["raw_hex"]) for item in items] == [b"\x00<b>no message</b>"]


@pytest.mark.django_db(transaction=True)
def test_quarantined_messages_are_requeued_after_an_upgrade_or_discarded(facilities, run_worker):
    broker = dramatiq.get_broker()
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

    assert requeued.strip() == "Requeued 1 quarantined message."
    assert discarded.strip() == "Discarded 2 quarantined messages."
    assert (waiting(facilities), facilities.transport.stats("default").quarantined) == (1, 0)


TOLD = (
    "killed by SIGSEGV in ways.py:43 crash, pid 7, at most 83 MB",
    "Actor: fail_always",
    "Fingerprint of its arguments: 0123456789abcdef",
    "last log lines:\nabout to crash <at 3>\nreading",
)


def test_command_shows_how_the_worker_of_a_poison_message_ended(bury):
    cause = f"{TOLD[0]}\nabout to crash <at 3>\nreading"
    error = Poison("fail_always", 3, cause, arguments="0123456789abcdef")
    told = "".join(traceback.format_exception(error))
    made = bury(reason="poison", exception="Poison", traceback=told, error=str(error))

    shown = output_of("deadletters", "show", made.id)

    assert [line for line in TOLD if line not in shown] == []
