"""Reset links work once, for an hour, and only while the password is the one they were made for."""

from __future__ import annotations

import datetime
import re

import pytest
import time_machine
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.urls import reverse

from apps.mail import guard, links
from apps.mail.links import LinkInvalid

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse 17 battery"


def make_mail(to="ada@mail.example", job="j1"):
    return guard.claim(guard.key_of(job, "password_reset"), to)


def token_of(link):
    return re.fullmatch(r"https?://[^/]+/account/reset/(.+)/", link)[1]


@pytest.fixture
def ada():
    return User.objects.create_user("ada", "ada@mail.example", "old password 1")


def test_using_one_link_uses_up_every_other_one_of_the_address():
    first, second = (token_of(links.reset_link(make_mail(job=job))) for job in ("j1", "j2"))

    links.set_password(second, PASSWORD)

    with pytest.raises(LinkInvalid, match="used before"):
        links.open_link(first)


def test_a_link_dies_with_the_password_it_was_made_for(ada):
    token = token_of(links.reset_link(make_mail()))
    ada.set_password("changed elsewhere 9")
    ada.save()

    with pytest.raises(LinkInvalid):
        links.open_link(token)


@pytest.mark.parametrize(("minutes", "works"), [(59, True), (61, False)])
def test_a_link_works_for_an_hour(minutes, works):
    with time_machine.travel("2026-11-20 10:00:00+00:00", tick=False) as clock:
        token = token_of(links.reset_link(make_mail()))
        clock.shift(datetime.timedelta(minutes=minutes))
        if works:
            assert links.open_link(token).to == "ada@mail.example"
        else:
            with pytest.raises(LinkInvalid, match="older than an hour"):
                links.open_link(token)


@pytest.mark.parametrize("token", ["", "x", "eyJtYWlsIjoxfQ:1w:abc", "a" * 5000])
def test_a_forged_link_is_refused(token):
    with pytest.raises(LinkInvalid, match="incomplete or was changed"):
        links.open_link(token)


def test_a_link_without_an_account_is_used_up_and_says_so():
    token = token_of(links.reset_link(make_mail()))

    assert links.set_password(token, PASSWORD) is False
    with pytest.raises(LinkInvalid):
        links.open_link(token)


def test_the_page_takes_the_token_out_of_its_address_and_sets_the_password(client, ada):
    link = links.reset_link(make_mail())

    opened = client.get(f"/account/reset/{token_of(link)}/")
    form = client.get(opened["Location"])
    done = client.post(opened["Location"], {"password": PASSWORD, "repeated": PASSWORD})
    again = client.get(f"/account/reset/{token_of(link)}/", follow=True)

    ada.refresh_from_db()
    assert opened["Location"] == reverse("mail-choose-password") == "/account/reset/"
    assert "Choose a new password" in form.content.decode()
    assert "Your password is changed" in done.content.decode()
    assert ada.check_password(PASSWORD)
    assert again.status_code == 410


def test_a_link_that_opens_nothing_starts_no_session(client):
    assert client.get(f"/account/reset/{'x' * 500}/").status_code == 410

    assert not Session.objects.exists()


def test_looking_at_the_page_does_not_use_up_the_link(client, ada):
    token = token_of(links.reset_link(make_mail()))

    for _ in range(2):
        assert client.get(f"/account/reset/{token}/", follow=True).status_code == 200


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({"password": PASSWORD, "repeated": "something else 1"}, "The two passwords differ"),
        ({"password": "", "repeated": ""}, "This field is required"),
    ],
)
def test_the_page_says_what_is_wrong_with_a_password(client, ada, typed, said):
    client.get(f"/account/reset/{token_of(links.reset_link(make_mail()))}/")

    page = client.post("/account/reset/", typed)

    assert said in page.content.decode()


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
