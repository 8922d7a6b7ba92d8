"""The sidebar counts the dead letters that wait for triage, and shows no badge when there are none."""

from __future__ import annotations

import re

import pytest
from django.test import Client
from django.urls import reverse

from switchyard.dead_letters import projection
from tests.factories.letters import letter

pytestmark = pytest.mark.django_db

PAGE = reverse("switchyard-operations")


def sidebar_link(page: str) -> str:
    """Return the item of the dead letters in the sidebar, tags and all."""
    address = re.escape(reverse("switchyard-letters"))
    found = re.search(rf'<a [^>]*href="{address}"[^>]*>.*?</a>', page, re.DOTALL)
    assert found is not None
    return found[0]


def words(part: str) -> list[str]:
    return re.sub(r"<[^>]+>", " ", part).split()


def test_no_badge_stands_beside_dead_letters_when_there_are_none(admin_client: Client) -> None:
    link = sidebar_link(admin_client.get(PAGE).content.decode())

    assert words(link)[-2:] == ["Dead", "letters"]
    assert "sy-badge" not in link


def test_the_badge_beside_dead_letters_is_their_number(admin_client: Client) -> None:
    projection.project_or_log(letter())

    link = sidebar_link(admin_client.get(PAGE).content.decode())

    assert words(link)[-4:] == ["Dead", "letters", "1", "open"]
    assert "sy-badge" in link
