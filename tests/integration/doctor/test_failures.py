"""Findings name the common part of failures and floods: a value, release, process or owner, or the actor itself."""

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from dramatiq.message import Message

from switchyard.broker.clock import now_ms
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.history.models import AttemptRow
from switchyard.operations.findings import actors
from switchyard.operations.findings.actors import all_failing, failing_actors
from switchyard.operations.findings.facts import Flood, flood_of
from switchyard.operations.rows import Row, RowStatus
from tests.integration.history.rows import job_row

pytestmark = pytest.mark.django_db
Enqueue = Callable[..., QueueOperations]


def job(number: int, *, failed: bool = False, **columns: Any) -> None:
    """Write the row of a job that ended ``number`` tenths of a second ago, and of its first attempt."""
    at = now_ms() - number * 100
    state = columns.pop("state", "retrying" if failed else "succeeded")
    place = {name: columns.pop(name) for name in ("release", "worker") if name in columns}
    error = {"error_type": "Refused", "error_message": "no"} if failed else {}
    row = job_row(
        actor="sync", state=state, finished_at=at, failed_at=at if failed else None, **error, **place, **columns
    )
    if failed:  # and a second one, in the pool of retries
        for attempt in (1, 2):
            where = place if attempt == 1 else {"worker": "retries.vm.9.abcdef01.1.1", "release": "retried"}
            AttemptRow.objects.create(
                job_id=row.job_id, generation=0, attempt=attempt, state="retrying", finished_at=at, **where
            )


def common() -> str:
    return next((found.common for found in failing_actors() if found.actor == "sync"), "nothing told")


def arguments(number: int) -> str:
    return f'{{"customer_id": {number % 20}, "format": "pdf", "number": {number}}}'


def test_three_customers_of_twenty_are_named():
    for number in range(100):
        job(number, failed=number % 20 in (7, 11, 13), arguments=arguments(number))

    [found] = failing_actors()

    assert sorted(found.common.removeprefix("customer_id ").split(", ")) == ["11", "13", "7"]
    assert "only customer_id" in actors.judge(found).seen and "all of theirs" in actors.judge(found).seen


def test_one_customer_is_told_at_five_per_cent_and_other_failures_are_not():
    for number in range(110):
        job(number, failed=number % 20 == 7, arguments=arguments(number))
    assert common() == "customer_id 7"

    job(111, arguments=arguments(7))  # one that succeeded

    assert common() == "nothing told"


def test_a_release_is_named_and_not_the_processes_that_run_it():
    for number in range(40):
        new = number % 4 == 0
        job(number, failed=new, release="2.0" if new else "1.9", worker=f"default.vm.{7 if new else 6}.abcdef01.1.1")

    assert common() == "release 2.0"


def test_a_process_is_named_by_its_first_attempts_not_by_the_pool_of_retries():
    for number in range(40):
        job(number, failed=number % 4 == 0, release="1.9", worker=f"default.vm.{6 + (number % 4 == 0)}.abcdef01.1.1")
    assert common() == "process default on vm (pid 7), child 1"

    for number in range(40, 80):
        job(number, failed=number % 4 == 0, release="1.9", worker=f"default.vm.{6 + number % 2}.abcdef01.1.1")

    assert common() == ""


@pytest.mark.parametrize("mail", ["[redacted]", "ann@example.com"])
def test_a_text_is_never_told(mail):
    for number in range(40):
        shown = f'{{"mail": "{mail}", "urgent": true}}' if number % 4 == 0 else '{"mail": "x", "urgent": false}'
        job(number, failed=number % 4 == 0, arguments=shown)

    assert common() == ""


def test_an_actor_of_which_the_newest_jobs_fail_is_found_with_the_first_of_them():
    for number in range(12):
        job(number, failed=True, run_ms=5_000, state="dead" if number % 2 else "retrying")
    for number in range(12, 60):
        job(number, run_ms=20)

    [found] = all_failing(["sync", "other"]).values()

    assert (found.failed, found.jobs, found.exception, found.slow) == (12, 12, "Refused", True)
    assert 1_100 <= now_ms() - found.since <= 60_000


@pytest.mark.parametrize(
    "failed",
    [
        lambda number: number < 3,  # too few
        lambda number: number > 1,  # it is over
        lambda number: bool(number % 3),
    ],
)
def test_an_actor_is_not_called_failing_for_a_part_of_its_jobs(failed):
    for number in range(30):
        job(number, failed=failed(number), run_ms=10)

    assert all_failing(["sync"]) == {}


def test_jobs_that_fail_at_once_do_not_wait_for_an_answer():
    for number in range(8):
        job(number, failed=True, run_ms=10)

    assert not all_failing(["sync"])["sync"].slow


@pytest.fixture(autouse=True)
def sync() -> None:

    @dramatiq.actor(actor_name="sync", queue_name="slow", redact=("mail",))
    def sync(customer_id: int = 0, format: str = "", mail: str = "", api_token: str = "", urgent: bool = False) -> None:
        pass


def entry(number: int, *args: Any, actor: str = "sync", parent: str = "", owner: str = "", **kwargs: Any) -> Entry:
    options = {name: value for name, value in (("parent", parent), ("owner", owner)) if value}
    message = Message("slow", actor, args, kwargs, options, f"job-{number}", 1)
    return Entry(message.message_id, codec.encode(message))


def flood(enqueue: Enqueue, *entries: Entry, busy: int = 4) -> Flood | None:
    enqueue("slow", *entries)
    return flood_of(
        Row("slow", "queue", "", "open", RowStatus("Late", "warn"), "slow", len(entries), slots=4, busy=busy)
    )


def test_an_actor_whose_jobs_sent_most_of_the_newest_messages_sends_itself(enqueue):
    first = [entry(number, actor="other") for number in range(100)]
    own = [entry(number, parent=f"job-{number - 1}") for number in range(100, 300)]

    found = flood(enqueue, *first, *own, *(entry(number, actor="other", parent="job-1") for number in range(300, 302)))

    assert found == Flood(98, 100, actor="sync", place="newest") and found.sends_itself
    assert found.text == "sync sends itself: 98 of the newest 100 that wait"


def test_jobs_that_another_actor_sent_or_an_unknown_job_do_not_send_themselves(enqueue):
    others = [entry(number, actor="other") for number in range(100)]
    sent = [entry(number, parent=f"job-{number % 100}" if number % 2 else "gone") for number in range(100, 300)]

    assert flood(enqueue, *others, *sent) is None


def test_the_value_of_most_of_the_newest_messages_is_told_by_the_name_of_its_argument(enqueue):
    every = [entry(number, number, format="pdf") for number in range(103)]
    found = flood(enqueue, *every, *[entry(number, 7, format="pdf") for number in range(200, 297)])

    assert found == Flood(97, 100, actor="sync", argument="customer_id=7", place="newest")
    assert found.text == "97 of the newest 100 are customer_id=7"


def test_the_value_of_those_that_others_wait_behind_is_told_as_well(enqueue):
    seventh = [entry(number, 7) for number in range(150)]

    found = flood(enqueue, *seventh, *(entry(number, number) for number in range(200, 300)))

    assert found is not None and (found.argument, found.place) == ("customer_id=7", "next")


@pytest.mark.parametrize(
    "values",
    [
        lambda number: {"format": "pdf"},  # of every message: no customer waits behind another
        lambda number: {"mail": 1 if number % 20 else 2},  # which its actor redacts
        lambda number: {"api_token": 1 if number % 20 else 2},  # by its name a secret
        lambda number: {"urgent": bool(number % 20)},
        lambda number: {"format": "Ann Lee" if number % 20 else "y"},  # arguments are seen by some of the staff alone
    ],
)
def test_a_value_that_says_nothing_or_is_hidden_is_never_told(enqueue, values):
    assert flood(enqueue, *(entry(number, **values(number)) for number in range(250))) is None


def test_an_owner_is_told_whose_flood_others_wait_behind(enqueue):
    of_acme = [entry(number, number, owner="acme") for number in range(150)]

    found = flood(enqueue, *of_acme, *(entry(number, number, owner=f"c-{number}") for number in range(200, 320)))

    assert found is not None and found.text == "100 of the next 100 of acme"


def test_an_owner_is_told_where_nothing_else_is_common_and_slots_are_busy(enqueue):
    of_acme = [entry(number, number, owner="acme" if number % 20 else "globex") for number in range(250)]

    found = flood(enqueue, *of_acme)

    assert found is not None and (found.owner, found.text) == ("acme", "about 95 % of acme")
    assert flood(enqueue, *of_acme, busy=1) is None
