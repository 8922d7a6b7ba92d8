"""Failures of an actor, from rows of the history and dead letters: each error by its name, with its own count."""

from __future__ import annotations

import pytest

from switchyard.broker.clock import now_ms
from switchyard.dead_letters.projection import project
from switchyard.history.models import AttemptRow, JobRow
from switchyard.operations.findings.actors import ENDED_MS, MENDED_MS, WINDOW_MS, failing_actors, judge, look
from tests.factories.letters import letter
from tests.integration.jobs.history_rows import job_row

pytestmark = pytest.mark.django_db
LONG_AGO_MS = ENDED_MS + 30_000


def fail(error: str, count: int, *, ago_ms: int = 1_000, text: str = "no") -> None:
    at = now_ms() - ago_ms
    for _ in range(count):
        job_row(
            actor="sync", state="dead", finished_at=at, failed_at=at, error_type=error, error_message=text,
            fingerprint=error,
        )  # fmt: skip


def give_up(error: str, count: int, *, ago_ms: int = 1_000) -> None:
    for _ in range(count):
        project(letter(actor="sync", exception=error, fingerprint=error, died_at=now_ms() - ago_ms))


def said() -> list[str]:
    return [judge(found).seen for found in failing_actors()]


def test_an_error_that_has_ended_is_told_apart_from_the_present_one() -> None:
    fail("HardLimitExceeded", 10, ago_ms=LONG_AGO_MS)
    fail("ConnectionRefusedError", 6)
    give_up("ConnectionRefusedError", 6)

    present, past = said()

    assert present.startswith("all of sync's jobs fail with ConnectionRefusedError: 6 of 6 since ")
    assert present.endswith(" UTC, 6 gave up")
    assert past.startswith("10 of 16 jobs of sync failed with HardLimitExceeded in the last 5 min, the last at ")
    assert "gave up" not in past


def test_an_actor_of_which_all_jobs_fail_since_a_moment_is_told_so_at_once() -> None:
    for _ in range(200):
        job_row(actor="sync", finished_at=now_ms() - 60_000)
    fail("KeyError", 5)

    [only] = said()

    assert only.startswith("all of sync's jobs fail with KeyError: 5 of 5 since ")


def test_rare_failures_among_others_are_a_share_of_the_window() -> None:
    for number in range(40):
        job_row(actor="sync", finished_at=now_ms() - 1_000 * number)
    fail("KeyError", 5, ago_ms=30_000)
    fail("KeyError", 5)

    assert said() == ["20 % of sync's jobs failed with KeyError: 10 of 50 in the last 5 min"]


def test_jobs_that_gave_up_are_no_more_than_those_that_failed() -> None:
    fail("KeyError", 56)
    give_up("KeyError", 30, ago_ms=WINDOW_MS + 60_000)
    give_up("KeyError", 57)

    assert said() == ["all of sync's jobs failed with KeyError: 57 of 57 in the last 5 min, 57 gave up"]


def test_a_few_failures_are_told_by_their_letters() -> None:
    fail("KeyError", 3)
    give_up("KeyError", 4, ago_ms=WINDOW_MS + 60_000)

    assert said() == ["4 jobs of sync gave up in the last 10 min with KeyError"]


def test_many_rare_errors_are_counted_together() -> None:
    for number in range(6):
        fail(f"Error{number}", 1)

    assert said() == ["all of sync's jobs failed with 6 kinds of errors: 6 of 6 in the last 5 min"]


@pytest.mark.parametrize(
    ("error", "text", "expected", "then"),
    [
        ("SSLError", "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired",
         "all of sync's jobs failed with SSLError, because a certificate has expired: 6 of 6 ", "Renew"),
        ("OSError", "[Errno 28] No space left on device",
         "all of sync's jobs failed with OSError, because a disk of its workers is full: 6 of 6 ", "Run `df -h`"),
        ("HTTPError", "401 Client Error: Unauthorized for url: https://api.bank.example/v1",
         "sync fails at api.bank.example, because its login or its rights are refused: 6 of 6 jobs failed ", "Check"),
        ("TypeError", "send_receipt() missing 1 required positional argument: 'locale'",
         "all of sync's jobs failed with TypeError, because its arguments do not fit its signature: 6 of 6", "Senders"),
        ("MemoryError", "", "all of sync's jobs failed with MemoryError, because its workers get no more memory: 6 of ",
         "Compare what the job loads at once with `memory_limit_bytes` of its pool"),
        ("ValidationError", "1 error, For further information visit https://errors.example.dev/2/v/missing",
         "all of sync's jobs failed with ValidationError: 6 of 6 ", "Remove the cause"),
    ],
)  # fmt: skip
def test_the_words_of_an_error_name_the_cause_and_the_step(error: str, text: str, expected: str, then: str) -> None:
    fail(error, 6, text=text)

    [found] = map(judge, failing_actors())

    assert found.seen.startswith(expected)
    assert found.then.startswith(then)
    assert found.then.endswith(
        "Jobs are retried by themselves; what gave up waits in the dead letters until you requeue it."
    )


def test_retries_do_not_move_the_moment_since_which_all_fail() -> None:
    job_row(actor="sync", finished_at=now_ms() - 90_000)
    fail("KeyError", 6)
    for row in JobRow.objects.filter(error_type="KeyError"):
        for attempt, ago_ms in ((1, 60_000), (2, 1_000)):
            AttemptRow.objects.create(
                job_id=row.job_id, generation=0, attempt=attempt, state="retrying", finished_at=now_ms() - ago_ms,
                error_type="KeyError",
            )  # fmt: skip

    [found] = failing_actors()

    assert 50_000 < now_ms() - found.first_at.timestamp() * 1_000 < 80_000


def test_failures_that_all_succeeded_in_a_retry_are_past_after_some_seconds() -> None:
    at = now_ms() - MENDED_MS - 1_000
    rows = [
        job_row(actor="sync", finished_at=at + 500, failed_at=at, error_type="KeyError", error_message="no")
        for _ in range(6)
    ]
    [past] = said()
    rows[0].state = "retrying"
    rows[0].save()

    [present] = said()

    assert past.startswith("6 of 6 jobs of sync failed") and ", 6 succeeded later; none since, for " in past
    assert present.startswith("all of sync's jobs failed with KeyError") and present.endswith("5 succeeded later")


def test_failures_are_past_once_as_many_ran_without_one_as_would_have_shown_it() -> None:
    at = now_ms() - MENDED_MS - 1_000
    for ago_ms in (1_000, 41_000):
        fail("TimeoutError", 10, ago_ms=MENDED_MS + ago_ms)
    for _ in range(80):
        job_row(actor="sync", finished_at=at - 20_000)
    for _ in range(20):
        job_row(actor="sync", finished_at=at + 5_000)

    [present] = said()
    for _ in range(20):
        job_row(actor="sync", finished_at=at + 5_000)

    assert present == "17 % of sync's jobs failed with TimeoutError: 20 of 120 in the last 5 min"
    assert said()[0].startswith("20 of 140 jobs of sync failed with TimeoutError in the last 5 min, the last at ")


def test_an_outbreak_in_which_all_failed_is_past_after_a_few_jobs_and_is_no_part_of_the_next() -> None:
    fail("KeyError", 44, ago_ms=100_000)
    for ago_ms in (200_000, 80_000):
        for _ in range(100):
            job_row(actor="sync", finished_at=now_ms() - ago_ms, worker="default:h:1:0")

    past = said()
    fail("KeyError", 24, ago_ms=5_000)
    JobRow.objects.filter(failed_at__gt=now_ms() - 10_000).update(worker="default:h:2:0")
    [present] = said()

    assert past[0].startswith("44 of 244 jobs of sync failed with KeyError")
    assert present.startswith("all of sync's jobs fail with KeyError: 24 of 24 since ")
    assert "only" not in present, "the process that ran the others has ended"


def test_many_jobs_that_crash_their_workers_are_told_together_and_no_process_is_blamed() -> None:
    at = now_ms() - 1_000
    for number in range(6):
        project(letter(actor="sync", exception="Poison", reason="poison", died_at=at))
        job_row(
            actor="sync", state="dead", finished_at=at, failed_at=at, error_type="Poison", error_message="SIGSEGV",
            worker=f"default:h:1:{number}",
        )  # fmt: skip
        job_row(actor="sync", finished_at=at, worker="default:h:9:0")

    found = [one for one in look() if one.code == "poison"]

    assert [one.letters for one in found] == [6] and found[0].seen.startswith("6 jobs of sync ended their workers")
    assert not any("only process" in one.seen for one in look())


def test_errors_that_name_one_host_are_one_cause() -> None:
    fail("ReadTimeout", 6, text="host='crm.example.com', port=443: timed out")
    fail("ConnectError", 6, text="host='crm.example.com', port=443: refused")

    assert said() == ["crm.example.com is down for sync: 12 of 12 jobs failed in the last 5 min"]


def test_the_count_of_what_is_over_stands_while_its_jobs_succeed_in_retries() -> None:
    at = now_ms() - MENDED_MS - 1_000
    failed_at = [at - (24 + 20 * n) % 49 for n in range(49)]  # they are tried again in another order
    rows = [job_row(actor="sync", finished_at=at, failed_at=each, error_type="KeyError") for each in failed_at]
    for n in range(100):
        job_row(actor="sync", finished_at=at + (n * 100 if n < 12 else -60_000))
    counted = set()
    for n, row in enumerate(rows):
        row.state, row.finished_at = "succeeded", at + 1_000 + n * 200
        row.save()
        counted.add(said()[0].split(" of sync")[0])

    assert counted == {"49 of 149 jobs"}
