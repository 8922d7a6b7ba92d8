"""The address of a job does not follow the Host of a request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import RequestFactory

from switchyard.api.responses import job_url
from switchyard.conf import read, switchyard_settings

JOB = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("debug", "is_given", "start"),
    [
        (True, True, "https://yard.example.com/"),
        (False, True, "https://yard.example.com/"),
        (False, False, "https://yard.example.com/"),
        (True, False, "http://localhost:666/"),
    ],
)
def test_a_public_url_is_used_where_it_is_set(settings: Any, debug: bool, is_given: bool, start: str) -> None:
    url = "https://yard.example.com"
    known = replace(switchyard_settings(), public_url=url, debug=debug, has_public_url=is_given)
    settings.SWITCHYARD = known

    assert job_url(RequestFactory().get("/", HTTP_HOST="localhost:666"), JOB).startswith(start)


def test_the_variable_counts_as_set_and_the_default_does_not() -> None:
    given = {"SWITCHYARD_PUBLIC_URL": "https://yard.example.com"}

    assert read({}, given, debug=True).has_public_url
    assert not read({}, {}, debug=True).has_public_url
