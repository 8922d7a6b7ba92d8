"""Guessing passwords of the admin: paused for the guesser, not for the owner."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from project.settings import AXES_FAILURE_LIMIT as FAILURES

LOGIN = "/admin/login/?next=/admin/"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def keys_of_its_own(settings: Any) -> None:
    """Answer other machines, as a web with keys of its own does."""
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if each != "project.middleware.loopback_only"]


@pytest.fixture
def ada() -> User:
    return User.objects.create_superuser("ada", "ada@example.com", "correct horse")


def log_in(password: str, *, address: str = "192.0.2.1", username: str = "ada", **headers: str) -> HttpResponse:
    data = {"username": username, "password": password, "next": "/admin/"}
    return Client(REMOTE_ADDR=address, **headers).post(LOGIN, data)


def test_further_wrong_passwords_are_not_answered(ada: User, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        statuses = [log_in(f"wrong {number}").status_code for number in range(FAILURES + 3)]
    answer = log_in("correct horse")

    assert statuses.count(200) == FAILURES - 1
    assert statuses[FAILURES:] == [429] * 3
    assert (answer.status_code, answer["Retry-After"]) == (429, "900")
    assert "Try again in 15 minutes" in answer.content.decode()
    assert any("ada" in record.getMessage() and "192.0.2.1" in record.getMessage() for record in caplog.records)
    assert not any("wrong" in record.getMessage() for record in caplog.records)


def test_the_owner_logs_in_from_another_address_and_another_user_from_the_same(ada: User) -> None:
    User.objects.create_superuser("grace", "grace@example.com", "correct horse")
    for number in range(FAILURES):
        log_in(f"wrong {number}")

    assert log_in("correct horse", address="192.0.2.2").status_code == 302
    assert log_in("correct horse", username="grace").status_code == 302


def test_a_header_does_not_change_the_address(ada: User) -> None:
    for number in range(FAILURES + 1):
        answer = log_in(f"wrong {number}", HTTP_X_FORWARDED_FOR=f"192.0.2.{number + 10}")

    assert answer.status_code == 429


def test_a_successful_login_forgets_the_failures(ada: User) -> None:
    for _ in range(2):
        for number in range(FAILURES - 1):
            log_in(f"wrong {number}")
        assert log_in("correct horse").status_code == 302

    assert AccessAttempt.objects.count() == 0
