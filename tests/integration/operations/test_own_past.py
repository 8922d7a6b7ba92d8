"""Actors are judged by their own past, and by failures in rows of the history and dead letters."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dramatiq
import msgspec
import pytest
import redis

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.stores import yard_facts
from switchyard.broker.stores.job_record import Job
from switchyard.dead_letters.projection import project
from switchyard.history.fact_keeper import store_hour
from switchyard.history.models import AttemptRow, JobRow
from switchyard.operations import past
from switchyard.operations.findings import own_past
from switchyard.operations.findings.actors import ENDED_MS, MENDED_MS, WINDOW_MS, failing_actors, judge, look
from switchyard.operations.findings.finding import Finding
from switchyard.operations.past import PAST, same_hours, usual_at
from tests.factories.letters import letter
from tests.integration.jobs.history_rows import job_row

pytestmark = pytest.mark.django_db
BANK, OTHER = "a:call_bank", "a:other"
# Classes of runs: of 40 to 80 ms, and of 20 to 41 s.
QUICK, LONG = yard_facts.RUNS + 4, yard_facts.RUNS + 13


def runs(quick: int = 0, long: int = 0, **more: int) -> dict[int, int]:
    found = {QUICK: quick, LONG: long, yard_facts.SUCCEEDED: quick + long, yard_facts.WAITS: quick + long}
    found |= {yard_facts.RUN_MS: quick * 60 + long * 30_000, yard_facts.SENT: more.pop("sent", quick + long)}
    return {code: count for code, count in found.items() if count} | {int(code[1:]): n for code, n in more.items()}


@dataclass
class Recorded:
    """Facts that a test writes as they would have been recorded."""

    valkey: redis.Redis
    now: int
    spans: dict[int, dict[str, dict[int, yard_facts.Counts]]] = field(default_factory=dict)

    def bucket(self, ago_s: int, subject: str, counts: yard_facts.Counts) -> None:
        key = Keys().facts_bucket(yard_facts.bucket_of(self.now - ago_s * 1_000))
        self.valkey.hset(key, mapping={f"{code} {subject}": count for code, count in counts.items()})

    def sampled(self) -> None:
        """Add the samples of a queue to the buckets of the last 15 minutes."""
        for ago_s in range(0, 900, 10):
            self.bucket(ago_s, "q:default", {yard_facts.DEPTH: 1})

    def minutes(self, subject: str, counts: yard_facts.Counts, *, since_min: int = 180, until_min: int = 0) -> None:
        """Put equal minutes into the spans from some minutes ago to others."""
        for ago in range(until_min, since_min):
            at = (self.now - ago * yard_facts.MINUTE_MS) // yard_facts.MINUTE_MS * yard_facts.MINUTE_MS
            of_subject = self.spans.setdefault(yard_facts.span_of(at), {}).setdefault(subject, {})
            of_subject[(at - yard_facts.span_of(at)) // yard_facts.MINUTE_MS] = counts
        for span, subjects in self.spans.items():
            packed = {name: msgspec.msgpack.encode(of) for name, of in subjects.items()}
            self.valkey.hset(Keys().facts_span(span), mapping=packed)

    def days(self, subject: str, counts: yard_facts.Counts, *, days: int = 5) -> None:
        for hour in same_hours(self.now // yard_facts.HOUR_MS)[:days]:
            store_hour(hour, {subject: counts})


@pytest.fixture
def recorded(facilities: Facilities, valkey: redis.Redis, monkeypatch: Any) -> Iterator[Recorded]:
    dramatiq.actor(lambda: None, actor_name="call_bank", queue_name="default")
    monkeypatch.setattr(own_past, "running_or_none", list)
    PAST.clear()
    facilities.facts.forget()
    yield Recorded(valkey, facilities.facts.server_ms())
    PAST.clear()


@pytest.fixture
def found(recorded: Recorded) -> Callable[[], list[Finding]]:
    return lambda: list(own_past.look())


@pytest.mark.parametrize(
    ("counts", "ms"),
    [
        (
            {yard_facts.RUNS + 4: 99, yard_facts.RUNS + 9: 1, yard_facts.RUN_MS: 99 * 51 + 2_000},
            51,
        ),  # a rare long one is no part of it
        ({yard_facts.RUNS + 4: 100, yard_facts.RUN_MS: 5_100}, 51),
        ({yard_facts.RUNS + 3: 50, yard_facts.RUNS + 4: 50, yard_facts.RUN_MS: 4_100}, 41),
        (
            {yard_facts.RUNS + 4: 60, yard_facts.RUNS + 9: 40, yard_facts.RUN_MS: 60 * 51 + 80_000},
            73,
        ),  # interpolated within its class
        ({}, None),
    ],
)
def test_the_middle_of_runs_that_are_alike_is_their_mean(counts, ms):
    found = past.median_ms(counts, yard_facts.RUNS)

    assert (None if found is None else int(found)) == ms


def test_runs_that_take_longer_than_at_this_hour_of_past_days_are_slower(recorded, found):
    recorded.days(BANK, runs(quick=6_000))
    for ago_s in range(300, 90, -10):
        recorded.bucket(ago_s, BANK, runs(quick=20))
    for ago_s in range(90, 0, -10):
        recorded.bucket(ago_s, BANK, runs(long=3))

    [finding] = found()

    assert (finding.name, finding.actor, finding.subject) == ("actors.slower", "call_bank", "default")
    said = r"call_bank takes 30 s, usually 60 ms at this hour, since ..:..:.. UTC: (\d+) of (\d+) runs"
    told = re.fullmatch(said, finding.seen)
    assert told is not None and told[1] == told[2] == str(9 * 3)  # all of them, not those of the window alone
    assert finding.next == "manage.py switchyard actors show call_bank"


@pytest.mark.parametrize(("run_ms", "told"), [((60, 60), 0), ((60,), 1), ((60, 30_000, 60), 1)])
def test_runs_are_slower_no_more_once_the_newest_take_as_long_as_usual(recorded, found, run_ms, told):
    recorded.days(BANK, runs(quick=6_000))
    for ago_s in range(90, 0, -10):
        recorded.bucket(ago_s, BANK, runs(long=3))
    for ago, each in enumerate(run_ms):
        job_row(actor="call_bank", state="succeeded", finished_at=recorded.now - 15_000 - ago, run_ms=each)
    job_row(actor="call_bank", state="succeeded", finished_at=recorded.now - 60_000, run_ms=60)  # before

    assert [each.name for each in found()] == ["actors.slower"] * told


def test_jobs_that_still_run_are_slow_before_one_has_ended(recorded, found, monkeypatch):
    recorded.minutes(BANK, runs(quick=10))
    held = Job(id="1", state="running", actor="call_bank", queue="default", started_at=recorded.now - 25_000)
    monkeypatch.setattr(own_past, "running_or_none", lambda: [held] * 8)

    [finding] = found()

    assert finding.seen.startswith("call_bank has run for 25 s and goes on, usually 60 ms in the hours before, since ")
    assert finding.seen.endswith(": 8 of 8 runs")

    recorded.bucket(0, BANK, runs(long=4, quick=2))  # of 30 s, which those that run have not reached
    assert found()[0].seen.startswith("call_bank takes 30 s, usually 60 ms in the hours before, since ")


@pytest.mark.parametrize(
    ("usual", "now"),
    [
        (runs(quick=100), runs(quick=30, long=1)),  # an eighth is slow at most
        (runs(quick=50, long=50), runs(long=4)),  # long runs are usual
        (runs(quick=9), runs(long=9)),  # nothing is usual of so few
        ({}, runs(long=9)),
    ],
)
def test_slow_runs_that_may_be_chance_are_not_told(recorded, found, usual, now):
    recorded.days(BANK, usual, days=1 if sum(usual.values()) < 2_000 else 4)
    recorded.days(OTHER, runs(quick=100), days=4)
    recorded.bucket(20, BANK, now)
    recorded.bucket(10, BANK, now)

    assert found() == []


@pytest.mark.parametrize(
    ("slow", "newest"),
    [
        (runs(long=20), runs(quick=20, long=1)),  # it is over
        (
            runs(long=20) | {yard_facts.SUCCEEDED: 0, yard_facts.RETRIED: 20},
            runs(long=20) | {yard_facts.SUCCEEDED: 0, yard_facts.RETRIED: 20},
        ),  # Failing is said
    ],
)
def test_slow_runs_that_are_over_or_failed_are_not_told(recorded, found, slow, newest):
    recorded.days(BANK, runs(quick=6_000))
    for ago_s in range(120, 40, -10):
        recorded.bucket(ago_s, BANK, slow)
    for ago_s in range(40, 0, -10):
        recorded.bucket(ago_s, BANK, newest)

    assert found() == []


def test_a_producer_that_stopped_is_silent(recorded, found):
    recorded.days(BANK, runs(quick=14_400))
    recorded.minutes(BANK, {yard_facts.SENT: 240}, until_min=4)
    recorded.sampled()
    recorded.bucket(150, BANK, {yard_facts.SENT: 40})

    [finding] = found()

    assert finding.name == "actors.silent"
    assert finding.seen.startswith("nothing sends call_bank: 0 in 2 min")
    assert "usually 240/min at this hour, since " in finding.seen


@pytest.mark.parametrize("why", ["nobody samples", "it pauses", "it is seldom sent", "it is night"])
def test_a_producer_that_may_only_pause_is_not_silent(recorded, found, why):
    recorded.days(BANK, runs(quick=120 if why == "it is seldom sent" else 14_400))
    for hour in range(18):
        if why != "it is night":
            recorded.minutes(
                BANK, {yard_facts.SENT: 240}, since_min=hour * 10 + 10, until_min=hour * 10 + (4 if hour else 3)
            )
    if why != "it pauses" and why != "it is night":
        recorded.minutes(BANK, {yard_facts.SENT: 240}, until_min=4)
    if why != "nobody samples":
        recorded.sampled()
    recorded.bucket(150, BANK, {yard_facts.SENT: 40})

    assert found() == []


def test_jobs_that_are_sent_for_much_later_than_usual_are_told(recorded, found):
    recorded.days(BANK, runs(quick=600))
    recorded.sampled()
    recorded.bucket(60, BANK, {yard_facts.LATER + 15: 12, yard_facts.SENT: 1})
    recorded.bucket(60, "a:other", {yard_facts.LATER + 15: 12})

    [finding] = found()

    assert finding.name == "actors.later"
    assert "is sent for 22 days" in finding.seen
    assert "from now or later, usually at once at this hour: 12 of 13 sends in the last 2 min" in finding.seen


def test_jobs_that_are_usually_sent_for_later_are_not_told(recorded, found):
    recorded.days(BANK, runs(quick=600, sent=100, _79=500))
    recorded.sampled()
    recorded.bucket(60, BANK, {yard_facts.LATER + 15: 12})

    assert found() == []


def test_one_bad_day_changes_nothing_of_what_is_usual(recorded):
    hours = same_hours(recorded.now // yard_facts.HOUR_MS)
    for hour in hours[:5]:
        store_hour(hour, {BANK: runs(quick=600)})
    store_hour(hours[2], {BANK: runs(long=6_000, _2=3_000)})

    usual = usual_at(recorded.now)[BANK]

    assert 40 <= (usual.run_ms or 0) <= 80
    assert (usual.sent_a_minute, usual.failing) == (10, 0)


def test_a_young_yard_is_compared_with_its_last_hours_and_one_of_minutes_knows_no_rates(recorded):
    assert usual_at(recorded.now) == {}
    recorded.minutes(BANK, runs(quick=12), since_min=35)
    half_an_hour = usual_at(recorded.now)[BANK]
    recorded.minutes(BANK, runs(quick=12))

    usual = usual_at(recorded.now)[BANK]

    assert 40 <= (half_an_hour.run_ms or 0) <= 80
    known = (half_an_hour.basis, half_an_hour.sent_a_minute, half_an_hour.failing, half_an_hour.later)
    assert known == ("before", None, None, ())
    assert (usual.basis, usual.sent_a_minute) == ("in the hours before", 12)


def test_weekends_are_compared_with_weekends():
    saturday = 495_000 + (5 * 24 - (495_000 - 96) % 168) % 168  # the epoch was a Thursday
    for hour in (saturday, saturday + 2 * 24):
        assert all(past._weekend(each) == past._weekend(hour) for each in same_hours(hour))
        assert same_hours(hour)


def test_evidence_grows_with_runs_and_is_none_for_what_is_usual():
    assert own_past.evidence(3, 100) == own_past.evidence(0, 0) == 0
    assert own_past.evidence(4, 4) < own_past.EVIDENCE < own_past.evidence(8, 8)
    assert yard_facts.SPAN_MS % yard_facts.BUCKET_MS == 0
    assert yard_facts.sent({yard_facts.SENT: 1, yard_facts.LATER: 2}) == 3


LONG_AGO_MS = ENDED_MS + 30_000
HOST_ERRORS = (("ReadTimeout", "port=443: timed out"), ("ConnectError", "port=443: refused"))


def fail(error: str, count: int, *, ago_ms: int = 1_000, text: str = "no") -> None:
    at = now_ms() - ago_ms
    for _ in range(count):
        job_row(
            actor="sync", state="dead", finished_at=at, failed_at=at, error_type=error, error_message=text,
            fingerprint=error,
        )  # fmt: skip


def succeed(count: int) -> None:
    for number in range(count):
        job_row(actor="sync", finished_at=now_ms() - 1_000 * number)


def give_up(error: str, count: int, *, ago_ms: int = 1_000) -> None:
    for _ in range(count):
        project(letter(actor="sync", exception=error, fingerprint=error, died_at=now_ms() - ago_ms))


def said() -> list[str]:
    return [judge(found).seen for found in failing_actors()]


def test_an_error_that_has_ended_is_told_apart_from_the_present_one():
    fail("HardLimitExceeded", 10, ago_ms=LONG_AGO_MS)
    fail("ConnectionRefusedError", 6)
    give_up("ConnectionRefusedError", 6)

    present, past = said()

    assert present.startswith("all of sync's jobs fail with ConnectionRefusedError: 6 of 6 since ")
    assert present.endswith(" UTC, 6 gave up")
    assert past.startswith("10 of 16 jobs of sync failed with HardLimitExceeded in the last 5 min, the last at ")
    assert "gave up" not in past


def test_an_actor_of_which_all_jobs_fail_since_a_moment_is_told_so_at_once():
    for _ in range(200):
        job_row(actor="sync", finished_at=now_ms() - 60_000)
    fail("KeyError", 5)

    [only] = said()

    assert only.startswith("all of sync's jobs fail with KeyError: 5 of 5 since ")


LETTERS_AGO_MS = WINDOW_MS + 60_000


@pytest.mark.parametrize(
    ("made", "seen"),
    [
        (lambda: [succeed(40), fail("KeyError", 5, ago_ms=30_000), fail("KeyError", 5)],
         "20 % of sync's jobs failed with KeyError: 10 of 50 in the last 5 min"),
        (lambda: [fail("KeyError", 56), give_up("KeyError", 30, ago_ms=LETTERS_AGO_MS), give_up("KeyError", 57)],
         "all of sync's jobs failed with KeyError: 57 of 57 in the last 5 min, 57 gave up"),
        (lambda: [fail("KeyError", 3), give_up("KeyError", 4, ago_ms=LETTERS_AGO_MS)],
         "4 jobs of sync gave up in the last 10 min with KeyError"),
        (lambda: [fail(f"Error{number}", 1) for number in range(6)],
         "all of sync's jobs failed with 6 kinds of errors: 6 of 6 in the last 5 min"),
        (lambda: [fail(error, 6, text=f"host='crm.example.com', {text}") for error, text in HOST_ERRORS],
         "crm.example.com is down for sync: 12 of 12 jobs failed in the last 5 min"),
    ],
    ids=["rare among others", "gave up, no more than failed", "few, by their letters", "many errors", "one host"],
)  # fmt: skip
def test_failures_are_counted_together_and_told_by_what_they_share(made, seen):
    made()

    assert said() == [seen]


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
def test_the_words_of_an_error_name_the_cause_and_the_step(error, text, expected, then):
    fail(error, 6, text=text)

    [found] = map(judge, failing_actors())

    assert found.seen.startswith(expected)
    assert found.then.startswith(then)
    assert found.then.endswith(
        "Jobs are retried by themselves; what gave up waits in the dead letters until you requeue it."
    )


def test_retries_do_not_move_the_moment_since_which_all_fail():
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


def test_failures_that_all_succeeded_in_a_retry_are_past_after_some_seconds():
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


def test_failures_are_past_once_as_many_ran_without_one_as_would_have_shown_it():
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


def test_an_outbreak_in_which_all_failed_is_past_after_a_few_jobs_and_is_no_part_of_the_next():
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


def test_many_jobs_that_crash_their_workers_are_told_together_and_no_process_is_blamed():
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


def test_the_count_of_what_is_over_stands_while_its_jobs_succeed_in_retries():
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
