"""Reset links work once, for an hour, and only while the password is the one they were made for."""

from __future__ import annotations

import datetime
import re

import pytest
import time_machine
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection

from apps.mail import guard, links, services

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse 17 battery"
TYPED = {"new_password1": PASSWORD, "new_password2": PASSWORD}


def page_of(address="ada@mail.example"):
    return re.fullmatch(r"https?://[^/]+(/account/reset/.+/)", links.reset_link(address))[1]


@pytest.fixture
def ada():
    return User.objects.create_user("ada", "ada@mail.example", "old password 1")


def test_a_link_sets_the_password_once_and_leaves_its_address(client, ada):
    page = page_of()

    opened = client.get(page)
    form = client.get(opened["Location"]).content.decode()
    done = client.post(opened["Location"], TYPED, follow=True).content.decode()
    again = client.get(page, follow=True).content.decode()

    ada.refresh_from_db()
    assert page not in opened["Location"] and "Choose a new password" in form and ada.email in form
    assert "Your password is changed" in done and "does not work any more" in again
    assert ada.check_password(PASSWORD)


@pytest.mark.parametrize(("minutes", "works"), [(59, True), (61, False)])
def test_a_link_works_for_an_hour(client, ada, minutes, works):
    with time_machine.travel("2026-11-20 10:00:00+00:00", tick=False) as clock:
        page = page_of()
        clock.shift(datetime.timedelta(minutes=minutes))
        said = client.get(page, follow=True).content.decode()

    assert ("Choose a new password" in said) is works


def test_a_forged_link_starts_no_session(client, ada):
    assert "does not work any more" in client.get(f"/account/reset/MQ/{'x' * 500}/").content.decode()

    assert not Session.objects.exists()


def test_a_mail_to_an_address_without_an_account_says_so(ada):
    addresses = (ada.email, "nobody@mail.example")
    mails = [guard.claim(to, "password_reset", to)[0] for to in addresses]

    known, unknown = (services.compose(mail).body for mail in mails)

    assert "/account/reset/" in known and "/account/reset/" not in unknown and "there is none" in unknown


@pytest.fixture
def compares_without_case(transactional_db):
    """SQLite, which knows the case of ASCII letters only, made to compare as PostgreSQL does."""

    def like(pattern, value, escape="\\"):
        plain = pattern.replace(escape, "").upper()
        return plain == value.upper() if value is not None else False

    connection.ensure_connection()
    connection.connection.create_function("like", 3, like)
    yield
    connection.close()


@pytest.mark.sqlite
@pytest.mark.parametrize("address", ["g\u0131na@mail.example", "gina@ma\u0131l.example", "gina@\u017fhop.example"])
def test_an_address_that_only_looks_like_the_accounts_is_not_its(address, compares_without_case):
    User.objects.create_user("gina", address.replace("\u0131", "i").replace("\u017f", "s"), "old password 1")

    assert User.objects.filter(email__iexact=address).exists()
    assert links.account_of(address) is None


def test_the_case_of_an_address_does_not_matter(ada):
    assert links.account_of("ADA@Mail.example") == ada
