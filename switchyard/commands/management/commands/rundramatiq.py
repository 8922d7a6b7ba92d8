"""django-dramatiq's own command, which also says what its workers lack."""

from __future__ import annotations

from typing import Any

from django_dramatiq.management.commands import rundramatiq


class Command(rundramatiq.Command):
    """Start Dramatiq's own workers, after a line about the pools that they are not."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Replace this process by ``dramatiq``."""
        self.stderr.write(
            "rundramatiq runs every queue in one set of threads, without the yard's pools; "
            "to start the pools, write manage.py switchyard runpools"
        )
        super().handle(*args, **options)
