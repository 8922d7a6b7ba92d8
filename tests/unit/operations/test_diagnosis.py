from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from apps.platform.dead_letters.queries import LetterGroup
from apps.platform.operations.diagnosis import Verdict, diagnose
from apps.platform.operations.queries import YardState
from apps.platform.operations.rows import yard_rows
from apps.platform.operations.server_state import REFUSALS, ServerState
from broker.health.server import ServerFinding
from broker.shapes import QueuePause
from tests.unit.operations.yards import YARD, down, lane, pool, state

NOW = datetime(2026, 11, 20, tzinfo=UTC)
LATE = lane("mail", 64, running=4, age_ms=41_000)


def verdict(now: YardState | None, *groups: LetterGroup, open_letters: int = 0) -> Verdict:
    return diagnose(yard_rows(YARD, now), now, groups, open_letters)


def group(letters: int, exception: str = "KeyError") -> LetterGroup:
    return LetterGroup("f00d", exception, "report", "slow", letters, letters, NOW, NOW)


def test_quiet_yard_is_on_time() -> None:
    found = verdict(state())

    assert (found.level, found.sentence) == ("ok", "Every queue is on time.")
    assert found.facts[1] == ("108 of 108", "slots idle")


def test_a_yard_with_old_dead_letters_is_on_time_and_not_healthy() -> None:
    found = verdict(state(), open_letters=16)

    assert (found.level, found.label) == ("ok", "On time")
    assert found.sentence == "Every queue is on time; 16 dead letters from before wait to be triaged."
    assert (found.action, found.href) == (
        "Triage 16 dead letters",
        "/admin/switchyard_dead_letters/deadletter/",
    )
    assert "1 dead letter from before waits" in verdict(state(), open_letters=1).sentence


def test_broker_that_is_away_comes_before_everything() -> None:
    found = verdict(None, group(5))

    assert (found.level, found.label) == ("bad", "Broker away")
    assert "safe" in found.then


def test_broker_that_is_away_names_no_command_that_is_not_there() -> None:
    assert "doctor" not in verdict(None).then


def test_broker_that_refuses_work_is_the_cause_of_everything_else() -> None:
    silent = replace(
        state(lane("mail", 3, age_ms=41_000), down("mail"), down("hooks"), scheduler_up=False),
        server=ServerState(*REFUSALS["OOM"]),
    )
    found = verdict(silent, group(9))

    assert (found.level, found.label, found.also) == ("bad", "Broker refuses", ())
    assert "its memory is full" in found.sentence
    assert "CONFIG SET maxmemory" in found.then and "no need to restart" in found.then


def test_broker_that_would_drop_work_is_told_first() -> None:
    evicting = ServerFinding("evicting", "error", "maxmemory-policy is 'allkeys-lru'", "Run `CONFIG SET`.")
    found = verdict(
        replace(state(lane("mail", 3, age_ms=41_000), down("mail")), server=ServerState(findings=(evicting,)))
    )

    assert (found.level, found.label) == ("bad", "Unsafe")
    assert found.sentence == "The broker is not safe: maxmemory-policy is 'allkeys-lru'."
    assert found.then == "Run `CONFIG SET`. New jobs are refused with 503 until then; waiting messages still run."
    assert len(found.also) == 1


def test_broker_that_is_nearly_full_is_told_last() -> None:
    full = ServerFinding("nearly_full", "warning", "the server uses 93 % of its memory", "Raise it.")
    found = verdict(replace(state(scheduler_up=False), server=ServerState(findings=(full,))))

    assert found.label == "No scheduler"
    assert found.also == ("The broker is not safe: the server uses 93 % of its memory.",)
    assert verdict(replace(state(), server=ServerState(findings=(full,)))).level == "warn"


def test_many_retries_are_told_before_the_first_job_gives_up() -> None:
    found = verdict(state(retry=lane("mail-retry", 3, scheduled=96, running=1)))

    assert (found.level, found.sentence) == ("warn", "Failed jobs wait for a retry: 100 of mail.")
    assert verdict(state(retry=lane("mail-retry", scheduled=99))).label == "Healthy"


def test_pool_that_is_down_with_work_waiting_is_named() -> None:
    found = verdict(state(lane("mail", 3, age_ms=41_000), down("mail")))

    assert found.sentence == "mail starts nothing, because no pool serves it; 3 jobs wait."


def test_late_because_every_slot_is_busy() -> None:
    found = verdict(state(LATE, pool("mail", busy=4)))

    assert found.sentence == (
        "mail is 41 × behind its promise, because all 4 slots are busy; 64 jobs wait, the oldest for 41 s."
    )


def test_a_late_queue_names_who_holds_its_slots_and_leads_to_its_page() -> None:
    now = state(LATE, pool("mail", busy=4))
    found = diagnose(yard_rows(YARD, now), now, (), 0, {"mail": "3 × newsletter, 1 × export", "hooks": "9 × hook"})

    assert "because all 4 slots are busy (3 × newsletter, 1 × export); 64 jobs wait" in found.sentence
    assert (found.action, found.href) == ("See who holds its slots", "/admin/operations/queues/mail/")


def test_late_with_free_slots_says_so() -> None:
    assert "its free slots start nothing" in verdict(state(LATE, pool("mail", busy=1))).sentence


def test_queue_that_somebody_paused_and_forgot_is_named_with_what_resumes_it() -> None:
    found = verdict(state(lane("mail", 5, age_ms=41_000), paused=True))

    assert (found.level, found.label) == ("warn", "Paused")
    assert found.sentence == "mail starts nothing, because an operator paused it; 5 jobs wait."
    assert "manage.py queues resume mail" in found.then


def test_a_pause_names_who_set_it_and_why_and_leads_to_its_page() -> None:
    now = state(lane("mail", 5, age_ms=41_000), paused=True)
    pause = QueuePause(until=1, by="ada", reason="disk is full")
    found = verdict(replace(now, queues=(replace(now.queues[0], pause=pause), now.queues[1])))

    assert found.sentence == "mail starts nothing, because ada paused it (disk is full); 5 jobs wait."
    assert (found.action, found.href) == ("Look at mail", "/admin/operations/queues/mail/")
    assert "It resumes by itself at the time that its page states." in found.then


def test_jobs_that_no_worker_knows_are_counted_by_queue() -> None:
    now = state(lane("mail", scheduled=3))
    found = verdict(replace(now, queues=(replace(now.queues[0], parked=3), now.queues[1])))

    assert (found.level, found.label) == ("warn", "Parked")
    assert "3 of mail" in found.sentence and "check_backlog" in found.then


def test_pool_that_works_without_pause_has_a_free_slot_now_and_then() -> None:
    found = verdict(state(LATE, pool("mail", busy=3)))

    assert "because 3 of 4 slots are busy" in found.sentence
    assert "more slots in project/topology.py" in found.then


def test_wait_below_a_second_is_no_verdict() -> None:
    yard = state(lane("mail", 1, age_ms=999))

    assert verdict(yard).label == "Healthy"


def test_failures_name_actor_exception_and_number() -> None:
    found = verdict(state(), group(9), group(3, "ValueError"), open_letters=12)

    assert found.sentence == "12 jobs gave up in the last 10 minutes, 9 of them because report fails with KeyError."
    assert (found.action, found.query) == ("Triage 9 dead letters", "?fingerprint=f00d")
    one = verdict(state(), group(1)).sentence
    assert one == "1 job gave up in the last 10 minutes, because report fails with KeyError."


def test_worst_finding_leads_and_the_others_follow() -> None:
    found = verdict(state(LATE, pool("mail", busy=4), down("hooks")), group(9))

    assert found.label == "Late"
    assert [sentence.split(",")[0] for sentence in found.also] == [
        "9 jobs gave up in the last 10 minutes",
        "No pool serves hooks; nothing waits there yet.",
    ]


def test_missing_pools_without_work_are_a_warning() -> None:
    found = verdict(state(None, down("hooks"), down("retries")))

    assert (found.level, found.sentence) == ("warn", "No pool serves hooks, retries; nothing waits there yet.")


def test_yard_without_a_scheduler_is_a_warning() -> None:
    found = verdict(state(scheduler_up=False))

    assert (found.level, found.label) == ("warn", "No scheduler")


def test_database_that_is_away_leaves_the_rest_of_the_verdict() -> None:
    assert diagnose(yard_rows(YARD, state()), state(), None, 0).label == "Healthy"
