"""A database behind a bouncer: options that need a session of their own are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler

from switchyard.workers.checks import database as bounced

Bounce = Callable[..., None]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Bounce:
    """Declare the default database as a PostgreSQL: ``database(bounced=True, pool=…)``."""

    def declare(*, bounced_: bool = True, **options: Any) -> None:
        entry = {"ENGINE": "django.db.backends.postgresql", "NAME": "yard", "OPTIONS": options}
        databases = {"default": entry | {"DISABLE_SERVER_SIDE_CURSORS": bounced_}}
        monkeypatch.setattr(settings, "DATABASES", databases)
        monkeypatch.setattr(bounced, "connections", ConnectionHandler(databases))

    return declare


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pool", {"max_size": 3}),
        ("pool", True),
        ("options", "-c lock_timeout=5s"),
        ("prepare_threshold", 5),
        ("server_side_binding", True),
        ("assume_role", "owner"),
    ],
)
def test_an_option_that_needs_a_session_is_refused(option: str, value: Any, database: Bounce) -> None:
    database(**{option: value, "connect_timeout": 5})

    [found] = bounced.forbidden_options()

    assert (found.id, found.obj) == ("switchyard.E023", "database default")
    assert repr(option) in found.msg and found.hint


def test_options_of_a_server_and_harmless_ones_are_allowed(database: Bounce) -> None:
    database(connect_timeout=5, prepare_threshold=None, pool=None)
    assert not list(bounced.forbidden_options())

    database(bounced_=False, pool=True, options="-c lock_timeout=5s")
    assert not list(bounced.forbidden_options())
