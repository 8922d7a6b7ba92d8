"""Each task of an operator, from the overview on: by touch on a phone without JavaScript, and by keyboard alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from devtools.room.yard import RoomYard
from tests.browser.conftest import Open
from tests.browser.hands import Hand, Keys, Touch
from tests.waiting import wait_for

SCHEDULE = "purge_delivery_attempts"
WAIT_S = 30.0


@pytest.fixture(params=["touch on a phone without scripts", "keys"])
def hand(request: pytest.FixtureRequest, open_page: Open) -> Hand:
    """A way to work, with the overview open."""
    touch = request.param != "keys"
    page = open_page(user="a.lind", scripts=not touch, phone=touch)
    page.goto("/admin/operations/")
    return Touch(page) if touch else Keys(page)


def shown(hand: Hand, pattern: str) -> None:
    """Wait until the content shows a text."""
    found = hand.page.get_by_role("main").get_by_text(re.compile(pattern, re.IGNORECASE))
    expect(found.filter(visible=True).first).to_be_visible()


def newest(yard: RoomYard, act: str, reason: str) -> Any:
    """Wait for an act's row in the audit log, by its reason, and return its outcome and count."""

    def found() -> Any:
        return next((row[1:3] for row in yard.make("acts", act) if row[3] == reason and row[1] != "begun"), None)

    return wait_for(found, WAIT_S, what=f"{act} with the reason {reason!r}")


def reason_of(hand: Hand) -> str:
    """Return a reason that no other test gives."""
    return f"asked for by {type(hand).__name__}"


def test_see_why_mails_are_late(hand: Hand) -> None:
    hand.menu("Queues")
    hand.act("link", "^default$")

    shown(hand, "Who holds the slots")
    shown(hand, "rate limit")


def test_see_what_a_worker_runs(hand: Hand) -> None:
    hand.menu("Workers")

    shown(hand, "export_orders")


def test_cancel_a_running_job(hand: Hand, yard: RoomYard) -> None:
    job = yard.make("running")
    hand.menu("Jobs")
    hand.write("Find a job", job)
    hand.act("button", "^Find job$")
    hand.act("link", "^Cancel job")

    hand.act("button", "^Cancel")

    wait_for(lambda: yard.make("job_state", job) == "cancelled", WAIT_S, what="the job to be cancelled")


def test_requeue_one_letter(hand: Hand, yard: RoomYard) -> None:
    made = yard.make("letters", 1)
    hand.page.goto(f"/admin/switchyard_dead_letters/deadletter/?fingerprint={made['fingerprint']}")
    before = len(yard.make("acts", "letter.requeue"))
    hand.act("link", f"^{made['jobs'][0][:8]}$")

    hand.act("button", "^Requeue letter")

    wait_for(lambda: len(yard.make("acts", "letter.requeue")) > before, WAIT_S, what="the act")
    shown(hand, "requeued")


def size_of(hand: Hand, most: int) -> int:
    """Return the size of a group that no other test makes."""
    return most - isinstance(hand, Touch)


def test_requeue_a_group(hand: Hand, yard: RoomYard) -> None:
    count = size_of(hand, 14)
    yard.make("letters", count)
    hand.menu("Dead letters")
    hand.act("link", f"^Triage {count}")
    hand.act("link", f"^Requeue {count}")
    hand.write("Reason", reason_of(hand))

    hand.act("button", f"^Requeue {count}")

    assert newest(yard, "letter.requeue", reason_of(hand)) == ["done", count]


def test_discard_a_group_with_a_reason(hand: Hand, yard: RoomYard) -> None:
    count = size_of(hand, 10)
    yard.make("letters", count)
    hand.menu("Dead letters")
    hand.act("link", f"^Triage {count}")
    hand.act("link", f"^Discard {count}")
    hand.write("Reason", reason_of(hand))

    hand.act("button", f"^Discard {count}")

    assert newest(yard, "letter.discard", reason_of(hand)) == ["done", count]


def test_find_a_job_by_an_argument(hand: Hand, yard: RoomYard) -> None:
    hand.menu("Jobs")
    hand.write("Find a job", "customer=umbrella")
    hand.act("button", "^Find job$")

    shown(hand, "confirm_order")
    assert "nordwind" not in hand.page.get_by_role("main").inner_text()


def test_pause_and_resume_a_queue(hand: Hand, yard: RoomYard) -> None:
    hand.menu("Queues")
    hand.act("link", "^slow$")
    hand.act("link", "^Pause slow")
    hand.write("Reason", reason_of(hand))

    hand.act("button", "^Pause slow")

    assert newest(yard, "queue.pause", reason_of(hand))[0] == "done"
    shown(hand, "paused")
    hand.act("link", "^Resume slow")
    hand.act("button", "^Resume slow")
    expect(hand.page.get_by_role("link", name=re.compile("^Pause slow"))).to_be_visible()


def test_list_the_failures_of_the_last_hour(hand: Hand) -> None:
    hand.menu("Jobs")
    hand.act("link", "^Last hour.s failures")

    shown(hand, "price_basket")
    shown(hand, "KeyError")


def test_see_how_late_a_schedule_is(hand: Hand) -> None:
    hand.menu("Schedules")

    shown(hand, SCHEDULE)
    shown(hand, "late|on time|has not run|never")


def test_run_a_schedule_now(hand: Hand, yard: RoomYard) -> None:
    before = len(yard.make("acts", "schedule.run"))
    hand.menu("Schedules")

    hand.act("button", f"^Run now.*{SCHEDULE}|^Run {SCHEDULE} now")

    wait_for(lambda: len(yard.make("acts", "schedule.run")) > before, WAIT_S, what="the act")
    shown(hand, "sent|runs|enqueued")


def test_acknowledge_an_alert(hand: Hand, yard: RoomYard) -> None:
    title = f"Acknowledged by {type(hand).__name__}"
    alert = yard.make("alert", title)
    hand.menu("Alerts")

    hand.act("button", f"^Acknowledge alert {alert}$")

    wait_for(lambda: yard.make("alert_state", alert) == "acknowledged", WAIT_S, what="the alert to be acknowledged")


def test_silence_an_alert(hand: Hand, yard: RoomYard) -> None:
    title = f"Silenced by {type(hand).__name__}"
    alert = yard.make("alert", title)
    hand.menu("Alerts")
    hand.act("link", f"^Silence for… alert {alert}$")
    hand.write("Reason", reason_of(hand))

    hand.act("button", "^Silence")

    assert newest(yard, "alert.silence", reason_of(hand))[0] == "done"
