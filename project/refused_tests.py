"""The test runner of ``manage.py test``: refused, it would work on the yard that runs."""

from typing import Any

from django.core.management.base import CommandError


class RefusedTests:
    """A test runner that runs nothing: only pytest starts a server and a state folder of its own.

    Raises:
        CommandError: always.
    """

    def __init__(self, **options: Any) -> None:
        raise CommandError("manage.py test would send to the yard that runs here; run bin/test or .venv/bin/pytest")
