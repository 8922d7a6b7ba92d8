"""Django's lists in the room's frame: acts, what the search compares, times in UTC, words for what is empty."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db.models import DateTimeField, Model
from django.test import Client, RequestFactory, override_settings
from django.urls import reverse

from apps.mail.models import SentMail, Template
from apps.shop.models import Customer, Payment
from apps.webhooks.models import Delivery
from switchyard.frame.list_words import search_hint, with_zone
from switchyard.frame.row_facts import column_of
from tests.integration.operations.test_overview import text_of

pytestmark = pytest.mark.django_db

LISTS: list[type[Model]] = [User, Group, SentMail, Payment, Delivery]
# Of the box on a screen of 390 px, and on a wide one.
LONGEST_HINT = 50


def list_of(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def mail(**columns: str) -> SentMail:
    known = {"key": "a:welcome", "job_id": "", "template": Template.WELCOME, "to": "grace@example.com"}
    return SentMail.objects.create(**known | columns)


@pytest.fixture
def rows() -> None:
    """A row in each list that needs no other."""
    mail()
    Group.objects.get_or_create(name="carriers")


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("model", LISTS)
def test_the_choice_of_an_act_asks_for_one_in_words(admin_client: Client, model: type[Model]) -> None:
    page = admin_client.get(list_of(model)).content.decode()

    assert "---" not in page
    if '<select name="action"' in page:
        assert '<option value="" selected>Choose an act …</option>' in page
        assert "Apply to the selected</button>" in page


def test_search_of_every_list_says_what_it_compares(rf: RequestFactory, admin_user: User) -> None:
    hints = {page.model: search_hint(page) for page in admin.site._registry.values() if page.search_fields}

    assert len(hints) > 10
    for model, hint in hints.items():
        assert 3 < len(hint) <= LONGEST_HINT and hint[0].isupper() and "_" not in hint, f"{model.__name__}: {hint}"


def test_hint_of_a_list_without_one_of_its_own_is_made_of_its_columns(admin_client: Client) -> None:
    page = admin_client.get(list_of(User)).content.decode()

    hint = "Username, first name, last name or email address"
    assert f'placeholder="{hint}"' in page
    assert f'<label for="searchbar">Search: {hint}</label>' in page


@pytest.mark.usefixtures("rows")
def test_headings_of_times_name_their_zone_and_others_do_not(admin_client: Client) -> None:
    page = admin_client.get(list_of(SentMail)).content.decode()

    heads = [text_of(head) for head in re.findall(r'<th scope="col".*?</th>', page, re.DOTALL)]
    assert heads[1:] == ["Template", "Recipient", "State", "Runs", "Created at (UTC)", "Sent at (UTC)"]
    assert 'data-label="Created at (UTC)"' in page and 'data-label="Runs"' in page


def test_headings_of_every_list_with_times_name_their_zone(admin_user: User) -> None:
    request = RequestFactory().get("/")
    request.user = admin_user

    headings = {}
    for model, page in admin.site._registry.items():
        for place, name in enumerate(page.get_list_display(request)):
            if isinstance(column_of(model, name), DateTimeField):
                changes = page.get_changelist_instance(request)
                plain = [{"text": str(each)} for each in changes.list_display]
                headings[model, name] = with_zone(changes, plain)[place + bool(page.get_actions(request))]["text"]

    assert len(headings) > 10
    assert {text.endswith(" (UTC)") for text in headings.values()} == {True}, headings


@override_settings(TIME_ZONE="Europe/Oslo")
@pytest.mark.usefixtures("rows")
def test_a_project_with_a_zone_of_its_own_reads_that(admin_client: Client) -> None:
    assert "Created at (Europe/Oslo)" in text_of(admin_client.get(list_of(SentMail)).content.decode())


def test_filter_and_add_stand_in_one_row(admin_client: Client) -> None:
    for model, buttons in ((User, ["Filter", "Add user"]), (SentMail, ["Filter"]), (Group, ["Add group"])):
        page = admin_client.get(list_of(model)).content.decode()

        tools = page[page.index('<ul class="object-tools">') :]
        found = re.findall(r"<a.*?</a>", tools[: tools.index("</ul>")], re.DOTALL)
        assert [text_of(link) for link in found] == buttons


def test_an_empty_list_says_so_and_one_without_a_match_leads_to_all(admin_client: Client) -> None:
    assert "There are no sent mails yet." in admin_client.get(list_of(SentMail)).content.decode()
    mail()

    page = admin_client.get(f"{list_of(SentMail)}?q=nobody").content.decode()

    assert "Nothing here matches the search and the filters." in page
    assert '<a class="sy-link" href="?">Show all sent mails</a>' in page


def test_a_truth_and_an_empty_value_are_words(admin_client: Client, admin_user: User) -> None:
    page = admin_client.get(list_of(User)).content.decode()

    assert "icon-yes" not in page
    assert re.search(r'data-label="Staff status" class="field-is_staff">Yes<', page)
    assert re.search(r'data-label="First name" class="field-first_name">–<', page)


def test_a_name_of_an_attacker_is_no_markup(admin_client: Client) -> None:
    Customer.objects.create(name='<img src="x/icon-yes.svg" alt="">', email="x@example.com", country="NO")

    page = admin_client.get(list_of(Customer)).content.decode()

    assert "&lt;img src=&quot;x/icon-yes.svg&quot;" in page and '<img src="x' not in page
