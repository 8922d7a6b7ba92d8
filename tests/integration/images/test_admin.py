"""The admin: pages load, and actions check their own permission."""

from __future__ import annotations

import pytest
from django.urls import reverse

from apps.images.making import make
from apps.images.models import Thumbnail, ThumbnailState
from tests.factories.pictures import encode, gradient
from tests.factories.staff import log_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def made(serve, make_thumbnail, facilities) -> Thumbnail:
    thumbnail = make_thumbnail(serve(encode(gradient(), "PNG"), path="yard.png?key=canary"))
    make(thumbnail.pk)
    thumbnail.refresh_from_db()
    return thumbnail


def test_every_page_loads_and_shows_no_query(made):
    client = log_in()

    pages = [
        client.get(reverse("admin:images_thumbnail_changelist")),
        client.get(reverse("admin:images_thumbnail_change", args=[made.pk])),
        client.get(reverse("admin:images_picture_changelist")),
        client.get(reverse("admin:images_picture_change", args=[made.picture_id])),
    ]

    assert [page.status_code for page in pages] == [200] * 4
    assert all("canary" not in page.content.decode() for page in pages)


@pytest.mark.django_db(transaction=True)
def test_making_again_is_a_new_job(made, facilities):
    url = reverse("admin:images_thumbnail_changelist")
    page = log_in().post(url, {"action": "make_again", "_selected_action": [made.pk]}, follow=True)

    made.refresh_from_db()
    assert "1 on the way" in page.content.decode()
    assert made.state == ThumbnailState.WAITING
    assert facilities.records.read(made.job_id).state == "queued"
