"""Each task of an operator in three ways, with at most four acts from the overview."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from devtools.room.yard import RoomYard
from tests.browser.conftest import new_context
from tests.browser.hands import WAYS, Hand, Keys, Mouse, Touch
from tests.browser.watching import Watch
from tests.waiting import wait_for

MOST_ACTS = 4
SCHEDULE = "purge_delivery_attempts"
WAIT_S = 120.0
# Groups of dead letters are told apart by their size.
SIZES = {Keys: 14, Touch: 15, Mouse: 16}


# The other ways and every second task with --long: `test_keys` has the keys, `test_without_scripts` the pages, and
# Django's client sends each form.
@pytest.fixture(
    scope="module", params=["touch", *(pytest.param(way, marks=pytest.mark.long) for way in ("keys", "no scripts"))]
)
def way(request, browser, yard):
    """A way to work, and a browser's context for it, with the operator logged in."""
    kind, options = WAYS[request.param]
    context = new_context(browser, yard, user="a.lind", **options)
    yield context, kind
    context.close()


@pytest.fixture
def hand(way):
    """A hand with the overview open, which may do few acts and sees no page with an error."""
    context, kind = way
    page = context.new_page()
    watch = Watch(page)
    made: Hand = kind(page)
    made.begin()
    yield made
    page.close()
    assert made.acts <= MOST_ACTS
    assert watch.errors == []


def shown(hand: Hand, pattern: str) -> None:
    """Wait until the content shows a text."""
    found = hand.page.get_by_role("main").get_by_text(re.compile(pattern, re.IGNORECASE))
    expect(found.filter(visible=True).first).to_be_visible()


def newest(yard: RoomYard, act: str, reason: str) -> Any:
    """Wait for an act's row in the audit log, by its reason, and return its outcome and count."""

    def found() -> Any:
        return next((row[1:3] for row in yard.make("acts", act) if row[3] == reason and row[1] != "begun"), None)

    return wait_for(found, WAIT_S, what=f"{act} with the reason {reason!r}")


def wait_for_more(yard: RoomYard, act: str, before: int) -> None:
    """Wait until the audit log has more rows of an act."""
    wait_for(lambda: len(yard.make("acts", act)) > before, WAIT_S, what=f"one more {act}")


def reason_of(hand: Hand) -> str:
    """Return a reason that no other way gives."""
    return f"asked for by {type(hand).__name__}"


def test_see_why_mails_are_late(hand):
    hand.act("link", "^default$")

    shown(hand, "Who holds the slots")
    shown(hand, "rate limit")


@pytest.mark.long
def test_see_what_a_worker_runs(hand, yard):
    yard.make("running")
    hand.menu("Workers")

    rows = hand.page.get_by_role("main").get_by_role("row")
    row = rows.filter(has_text="export_orders").filter(has_text="customer=").first
    expect(row).to_contain_text("customer=")
    expect(row).to_contain_text("since ")


def test_cancel_a_running_job(hand, yard):
    job = yard.make("running")
    hand.begin()
    hand.act("link", f"^Cancel… {job}$")

    hand.act("button", "^Cancel 1 job$")

    wait_for(lambda: yard.make("job_state", job) == "cancelled", WAIT_S, what="the job to be cancelled")


@pytest.mark.long
def test_run_a_scheduled_job_now(hand, yard):
    job = yard.make("scheduled")
    hand.find(job)

    hand.act("button", "^Run now$")

    shown(hand, "starts as soon as a slot is free")
    wait_for(lambda: yard.make("job_state", job) != "scheduled", WAIT_S, what="the job to leave its schedule")


@pytest.mark.long
def test_requeue_one_letter(hand, yard):
    made = yard.make("letters", 1)
    before = len(yard.make("acts", "letter.requeue"))
    hand.begin()
    hand.act("link", "^[0-9]+ dead$")
    hand.act("link", f"^{made['jobs'][0][:8]}$")

    hand.act("button", "^Requeue letter$")

    wait_for_more(yard, "letter.requeue", before)
    shown(hand, "requeued")


def test_requeue_a_group(hand, yard):
    count = SIZES[type(hand)]
    yard.make("letters", count)
    hand.begin()
    hand.act("link", "^[0-9]+ dead$")
    hand.act("link", f"^Triage {count}…")
    hand.act("link", f"^Requeue {count}…$")
    hand.write("Reason", reason_of(hand))

    hand.act("button", f"^Requeue {count} dead letters$")

    assert newest(yard, "letter.requeue", reason_of(hand)) == ["done", count]


@pytest.mark.long
def test_discard_a_group_and_restore_it(hand, yard):
    count = SIZES[type(hand)] + 10
    yard.make("letters", count)
    hand.begin()
    hand.act("link", "^[0-9]+ dead$")
    hand.act("link", f"^Triage {count}…")
    hand.act("link", f"^Discard {count}…$")
    hand.write("Reason", reason_of(hand))
    hand.act("button", f"^Discard {count} dead letters$")
    assert newest(yard, "letter.discard", reason_of(hand)) == ["done", count]
    assert hand.acts <= MOST_ACTS

    hand.begin()
    hand.act("link", "^[0-9]+ dead$")
    hand.act("link", "^Discarded")
    hand.act("link", f"^Restore {count}…")
    hand.write("Reason", reason_of(hand))
    hand.act("button", f"^Restore {count} discarded letters$")
    assert newest(yard, "letter.restore", reason_of(hand)) == ["done", count]


def test_find_a_job_by_an_argument(hand):
    hand.find("customer=umbrella")

    shown(hand, "confirm_order")
    assert "nordwind" not in hand.page.get_by_role("main").inner_text()


def test_pause_and_resume_a_queue(hand, yard):
    hand.act("link", "^slow$")
    hand.act("link", "^Pause slow…$")
    hand.write("Reason", reason_of(hand))
    hand.act("button", "^Pause slow$")
    assert newest(yard, "queue.pause", reason_of(hand))[0] == "done"
    shown(hand, f"Reason: {reason_of(hand)}")
    assert hand.acts <= MOST_ACTS

    hand.begin()
    hand.act("link", "^slow$")
    hand.act("link", "^Resume slow…$")
    hand.act("button", "^Resume slow$")
    expect(hand.page.get_by_role("link", name=re.compile("^Pause slow"))).to_be_visible()


@pytest.mark.long
def test_list_the_failures_of_the_last_hour(hand):
    hand.menu("Jobs")
    hand.act("link", "^Last hour.s failures")

    shown(hand, "price_basket")
    shown(hand, "KeyError")


@pytest.mark.long
def test_see_how_late_a_schedule_is(hand):
    hand.menu("Schedules")

    row = hand.page.get_by_role("main").get_by_role("row").filter(has_text=SCHEDULE)
    expect(row).to_contain_text(re.compile("late|On time|no tick yet"))


@pytest.mark.long
def test_run_a_schedule_now(hand, yard):
    before = len(yard.make("acts", "schedule.run"))
    hand.menu("Schedules")

    hand.act("button", f"^Run now {SCHEDULE}$")

    wait_for_more(yard, "schedule.run", before)
    shown(hand, f"{SCHEDULE}.* sent|sent .*{SCHEDULE}")


def test_acknowledge_an_alert(hand, yard):
    alert = yard.make("alert", f"Acknowledged by {type(hand).__name__}")
    hand.menu("Alerts")

    hand.act("button", f"^Acknowledge alert {alert}$")

    wait_for(lambda: yard.make("alert_state", alert) == "acknowledged", WAIT_S, what="the alert to be acknowledged")


@pytest.mark.long
def test_silence_an_alert(hand, yard):
    alert = yard.make("alert", f"Silenced by {type(hand).__name__}")
    hand.menu("Alerts")
    hand.act("link", f"^Silence for… alert {alert}$")
    hand.choose("For", "1 day")
    hand.write("Reason", reason_of(hand))

    hand.act("button", "^Silence this alert$")

    assert newest(yard, "alert.silence", reason_of(hand))[0] == "done"
    shown(hand, reason_of(hand))
