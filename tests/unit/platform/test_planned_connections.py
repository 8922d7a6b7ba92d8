"""The sum of database connections that a yard may open, and the limit of a PostgreSQL that nobody configured."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler

from switchyard import database
from switchyard.conf import DEFAULT_YARD
from switchyard.database import RESERVED_CONNECTIONS, SPARE_CONNECTIONS, WEB_CONNECTIONS, planned_connections, pool_size
from tests.unit.documentation.pages import read

PAGE = read("docs/how-to/run-on-postgresql.md")
# PostgreSQL's own, and how much of it a person with psql, a backup and a second web need.
DEFAULT_LIMIT, MARGIN = 100, 5


@pytest.mark.parametrize("size", [None, 20])
def test_the_yard_of_a_project_that_declares_none_fits_a_postgres_that_nobody_configured(size: int | None) -> None:
    planned = planned_connections(DEFAULT_YARD, pool_size=size)

    assert planned + MARGIN <= DEFAULT_LIMIT - RESERVED_CONNECTIONS
    assert f"**{planned}**" in PAGE


def test_the_page_says_what_the_repositorys_own_yard_may_open() -> None:
    planned = planned_connections(settings.SWITCHYARD.topology.with_cores(2))

    assert re.search(rf"\| {planned} on two cores.*at least {planned + RESERVED_CONNECTIONS}", PAGE, re.DOTALL)


def test_a_pool_of_django_bounds_the_web_and_adds_a_connection_for_async_actors_to_each_child() -> None:
    children = sum(pool.most_children for pool in DEFAULT_YARD.pools)
    slots = planned_connections(DEFAULT_YARD) - WEB_CONNECTIONS - SPARE_CONNECTIONS

    assert planned_connections(DEFAULT_YARD, pool_size=7) == slots + children + 7 + SPARE_CONNECTIONS


@pytest.mark.parametrize(
    ("options", "size"),
    [
        *(({}, None), ({"pool": False}, None), ({"pool": True}, 4), ({"pool": {"min_size": 6}}, 6)),
        ({"pool": {"min_size": 0, "max_size": 20}}, 20),
    ],
)
def test_size_of_djangos_pool_is_read_from_the_options(
    options: dict[str, Any], size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = ConnectionHandler({"default": {"ENGINE": "django.db.backends.postgresql", "OPTIONS": options}})
    monkeypatch.setattr(database, "connections", handler)

    assert pool_size("default") == size
