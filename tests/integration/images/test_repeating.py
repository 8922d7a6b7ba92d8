"""The actor of the images product may run again after a crash: the thumbnail is made once."""

import pytest

from apps.images.actors import make_thumbnail as make_thumbnail_actor
from apps.images.models import ThumbnailState
from switchyard.testing import redelivered
from tests.factories.pictures import encode, gradient

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("switchyard_broker", "media")]


def test_the_actor_of_images_can_be_repeated(serve, make_thumbnail):
    thumbnail = make_thumbnail(serve(encode(gradient(), "PNG")))
    make_thumbnail_actor.send(thumbnail.pk)

    assert redelivered() == ["make_thumbnail"]
    thumbnail.refresh_from_db()
    assert thumbnail.state == ThumbnailState.MADE
