"""A key is taken together with its effects, and given back with them."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import transaction
from django.utils import timezone
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage

from switchyard import database
from switchyard.jobs.models import DoneOnce
from switchyard.jobs.once import delete_old_keys, once

pytestmark = pytest.mark.django_db


class Interrupt(BaseException):
    """A time limit, say."""


def held(job_id: str, token: int | None = None) -> object:
    """Return a message as a worker holds it; without a token as other brokers do."""
    message = Message("work", "an_actor", (), {}, {}, message_id=job_id)
    if token is None:
        return message
    return SimpleNamespace(message_id=job_id, lease=SimpleNamespace(token=b"%d" % token))


@pytest.fixture
def run_as():
    """Be inside of a job: ``run_as(held("job", 7))``."""
    worker = CurrentMessage()
    yield lambda message: worker.before_process_message(None, message)
    worker.after_process_message(None, None)


def taken(key: str) -> bool:
    """Take a key and return whether this was the first time."""
    with once(key) as first:
        return first


def test_only_the_first_is_first():
    assert [taken("a"), taken("a"), taken("b"), taken("a")] == [True, False, True, False]


@pytest.mark.parametrize("failure", [RuntimeError, Interrupt])
def test_what_fails_gives_the_key_back_with_its_effects(failure):
    with pytest.raises(failure), once("a") as first:
        assert first
        assert taken("effect")
        raise failure

    assert not DoneOnce.objects.exists()
    assert taken("a")


def test_a_transaction_around_it_takes_the_key_back_as_well():
    with pytest.raises(RuntimeError), transaction.atomic():
        assert taken("a")
        raise RuntimeError

    assert taken("a")


def test_a_key_that_was_taken_leaves_the_transaction_around_it_usable():
    taken("a")
    with transaction.atomic():
        again, other = taken("a"), taken("b")
    assert (again, other) == (False, True)
    assert DoneOnce.objects.filter(key="b").exists()


def test_the_row_tells_which_job_did_it_and_under_which_lease(run_as):
    run_as(held("job-1", 7))
    taken("a")
    run_as(held("job-2", 8))
    taken("a")

    row = DoneOnce.objects.get()
    assert (row.key, row.job_id, row.token) == ("a", "job-1", 7)
    assert timedelta() <= timezone.now() - row.created_at < timedelta(minutes=1)


def test_without_a_key_it_is_once_a_job_and_outside_of_a_job_the_key_has_to_be_named(run_as):
    with pytest.raises(ValueError, match=r'pass one, such as once\("invoice-17"\)'), once():
        pass

    firsts = []
    for job_id, token in (("job-1", 7), ("job-1", 9), ("job-2", None), ("job-2", None)):
        run_as(held(job_id, token))
        with once() as first:
            firsts.append(first)

    assert firsts == [True, False, True, False]
    rows = DoneOnce.objects.values_list("key", "job_id", "token").order_by("id")
    assert list(rows) == [("job-1", "job-1", 7), ("job-2", "job-2", None)]


@pytest.mark.parametrize(
    ("key", "says"), [("", "0 characters, .* 1 to 200"), ("x" * 201, "201 characters.*SHA-256"), ("a\0b", "NUL")]
)
def test_a_key_that_cannot_be_kept_is_refused_and_not_told(key, says):
    with pytest.raises(ValueError, match=says) as refused, once(key):
        pass

    assert not key or key not in str(refused.value)
    with pytest.raises(TypeError, match="the key is an int; write text"), once(17):  # type: ignore[arg-type]
        pass


def test_what_is_older_than_a_week_is_forgotten_and_nothing_else():
    now = timezone.now()
    ages = {"old": timedelta(days=7, minutes=1), "young": timedelta(days=6, hours=23), "new": timedelta()}
    for key, age in ages.items():
        DoneOnce.objects.create(key=key, created_at=now - age)

    assert (delete_old_keys(), set(DoneOnce.objects.values_list("key", flat=True))) == (1, {"young", "new"})


def test_a_call_forgets_some_batches_the_next_the_rest(monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(database, "AT_ONCE", 10)
    monkeypatch.setattr(database, "MOST_BATCHES", 3)
    long_ago = timezone.now() - timedelta(days=8)
    DoneOnce.objects.bulk_create(DoneOnce(key=str(number), created_at=long_ago) for number in range(35))

    with django_assert_num_queries(6):
        assert delete_old_keys() == 30
    assert (delete_old_keys(), delete_old_keys()) == (5, 0)
