"""The application that ``runweb`` serves."""

from __future__ import annotations

from unittest import mock

from pytest_django import Settings

from switchyard.serving import server


@mock.patch.object(server, "refuse_if_wrong")
def test_a_project_without_asgi_is_served(_: object, settings: Settings) -> None:
    settings.ROOT_URLCONF = "urls"

    application = server.load_application()

    assert callable(application) and application.body_bytes == server.BODY_BYTES, "its pages may take uploads"
