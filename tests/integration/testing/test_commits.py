"""transaction.on_commit inside of Django's TestCase, whose transaction never commits."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Group
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.services import enqueue_on_commit
from switchyard.testing import assert_enqueued, assert_nothing_enqueued, in_memory, run_enqueued


def groups() -> set[str]:
    """Names of the groups that no migration made."""
    return set(Group.objects.exclude(name__startswith="Switchyard").values_list("name", flat=True))


def make_group_actor(name: str = "make_group") -> dramatiq.Actor[..., Any]:
    @dramatiq.actor(queue_name="default", actor_name=name)
    def make_group(name: str) -> None:
        Group.objects.create(name=name)

    return make_group


@in_memory()
class OnCommit(TestCase):
    """A plain TestCase: what is asserted is what production would do."""

    def setUp(self) -> None:
        self.make_group = make_group_actor()

    def test_a_job_of_a_commit_is_enqueued_and_sees_the_rows_of_the_test(self) -> None:
        Group.objects.create(name="mine")
        with transaction.atomic():
            job_id = enqueue_on_commit(self.make_group, "of a job")

        [message] = assert_enqueued(self.make_group, args=("of a job",), count=1)
        run_enqueued()

        assert message.message_id == job_id
        assert groups() == {"mine", "of a job"}

    def test_the_rows_of_the_test_before_are_gone(self) -> None:
        assert groups() == set()
        assert_nothing_enqueued()

    def test_a_rollback_enqueues_nothing(self) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            enqueue_on_commit(self.make_group, "nobody")
            raise ZeroDivisionError

        assert_nothing_enqueued()

    def test_inside_of_a_transaction_nothing_is_enqueued_yet(self) -> None:
        with transaction.atomic():
            enqueue_on_commit(self.make_group, "later")
            assert_nothing_enqueued()

        assert_enqueued(self.make_group)

    def test_a_callback_runs_once_also_beside_djangos_own_helper(self) -> None:
        ran: list[str] = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: ran.append("captured"))
        transaction.on_commit(lambda: ran.append("not captured"))

        run_enqueued()
        run_enqueued()

        assert len(callbacks) == 1
        assert ran == ["captured", "not captured"]

    def test_a_callback_that_fails_is_raised_and_a_robust_one_logged(self) -> None:
        transaction.on_commit(lambda: 1 / 0, robust=True)
        with self.assertLogs("switchyard.testing", "ERROR"):
            run_enqueued()
        transaction.on_commit(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_enqueued()

    def test_callbacks_of_a_task_run_with_the_task(self) -> None:
        @dramatiq.actor(queue_name="default")
        def outer() -> None:
            with transaction.atomic():
                enqueue_on_commit(self.make_group, "of a task")

        outer.send()
        assert [attempt.actor for attempt in run_enqueued()] == ["outer", "make_group"]

    @in_memory(eager=True)
    def test_eager_mode_runs_at_the_end_of_the_transaction(self) -> None:
        make_group = make_group_actor("eager")

        with transaction.atomic():
            with transaction.atomic():
                enqueue_on_commit(make_group, "inner")
            assert groups() == set()
        assert groups() == {"inner"}
        enqueue_on_commit(make_group, "outside")
        assert groups() == {"inner", "outside"}


@in_memory()
class RealCommits(TransactionTestCase):
    """A TransactionTestCase commits by itself."""

    def test_a_job_is_enqueued_at_the_commit(self) -> None:
        make_group = make_group_actor()

        with transaction.atomic():
            enqueue_on_commit(make_group, "real")
            assert_nothing_enqueued()
        assert_enqueued(make_group, count=1)
        run_enqueued()

        assert groups() == {"real"}


@pytest.mark.django_db
def test_the_fixture_works_with_pytest_djangos_helper(
    switchyard_broker: object, django_capture_on_commit_callbacks: Any
) -> None:
    make_group = make_group_actor()

    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        enqueue_on_commit(make_group, "captured")
    enqueue_on_commit(make_group, "not captured")
    run_enqueued()

    assert_enqueued(make_group, count=2)
    assert groups() == {"captured", "not captured"}


@pytest.mark.django_db
def test_a_dead_letter_has_its_row_for_people(switchyard_broker: object) -> None:
    @dramatiq.actor(queue_name="default", permanent=(ValueError,))
    def broken() -> None:
        raise ValueError

    broken.send()
    run_enqueued(raises=False)

    assert DeadLetter.objects.get().actor == "broken"
