"""The allowance counts for one mailbox and one window, and its refusal frees the key."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.mail import allowances
from apps.mail.models import UsedAllowance
from switchyard.api.problems import Problem
from switchyard.api.request_jobs import RequestJobs, request_jobs

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def two_in_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowances, "LIMIT", 2)
    monkeypatch.setattr(allowances, "WINDOW", timedelta(minutes=5))


def test_of_three_requests_two_are_allowed_and_the_third_waits_for_the_window() -> None:
    answers = [allowances.use("ada") for _ in range(3)]

    assert answers[:2] == [0, 0]
    assert 295 <= answers[2] <= 300


def test_mailboxes_are_counted_apart() -> None:
    for _ in range(2):
        allowances.use("ada")

    assert allowances.use("bob") == 0


def test_a_new_window_begins_when_the_old_one_is_over() -> None:
    for _ in range(3):
        allowances.use("ada")
    UsedAllowance.objects.update(began_at=timezone.now() - timedelta(minutes=5))

    assert [bool(allowances.use("ada")) for _ in range(3)] == [False, False, True]


def test_no_address_is_stored() -> None:
    allowances.use("ada@example.com")

    assert "ada" not in UsedAllowance.objects.get().key


def test_a_refusal_is_429_with_a_time_to_wait_and_frees_the_key() -> None:
    for _ in range(2):
        allowances.require("ada")

    with request_jobs(RequestJobs(has_key=True, claim="one claim")) as jobs, pytest.raises(Problem) as raised:
        allowances.require("ada")

    assert raised.value.status == 429
    assert 0 < int(raised.value.headers["Retry-After"]) <= 300
    assert jobs.refused_before_work


def test_a_repeated_request_is_counted_once() -> None:
    for _ in range(5):
        with request_jobs(RequestJobs(has_key=True, claim="one claim", repeated=True)):
            allowances.require("ada")

    assert not UsedAllowance.objects.exists()


def test_old_counts_are_purged() -> None:
    allowances.use("ada")
    UsedAllowance.objects.update(began_at=timezone.now() - timedelta(days=3))
    allowances.use("bob")

    assert allowances.purge() == 1
    assert UsedAllowance.objects.count() == 1
