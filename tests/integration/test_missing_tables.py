"""A job that lacks a table fails with the command that creates it."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, connection

from apps.platform.missing_tables import REMEDY, MissingTables

pytestmark = pytest.mark.database


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT 1 FROM loyalty_points", True),
        ("SELECT colour FROM auth_user", True),
        ("INSERT INTO auth_group (colour) VALUES (1)", True),
        ("SELECT 1 FROM", False),
    ],
)
def test_the_failure_names_the_command(db: None, statement: str, told: bool) -> None:
    unused: Any = None
    with pytest.raises(DatabaseError) as failed, connection.cursor() as cursor:
        cursor.execute(statement)

    MissingTables().after_process_message(unused, unused, exception=failed.value)

    assert getattr(failed.value, "__notes__", []) == ([REMEDY] if told else [])
