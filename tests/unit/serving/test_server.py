"""The application that ``runweb`` serves."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from switchyard.api.request_limits import RequestLimits
from switchyard.serving import server


@pytest.mark.parametrize("addresses", ["switchyard.urls", "urls"])
def test_a_project_without_asgi_is_served_behind_the_limits(
    addresses: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ROOT_URLCONF = addresses
    monkeypatch.setattr(server, "refuse_if_wrong", lambda: None)

    assert isinstance(server.load_application(), RequestLimits)


def test_an_application_that_the_settings_name_goes_before_djangos(settings: Settings) -> None:
    settings.ASGI_APPLICATION = "tests.unit.serving.test_server.missing"

    with pytest.raises(ImportError, match="missing"):
        server.load_application()
