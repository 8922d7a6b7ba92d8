"""System check of the setting ``RETENTION_DAYS``."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error

from apps.retention.kinds import kinds


def check_retention_days(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a kind that no installed app keeps: its data would stay for ever."""
    known = [kind.name for kind in kinds()]
    found: list[CheckMessage] = []
    for name in settings.RETENTION_DAYS:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the kinds are {', '.join(sorted(known))}"
            found.append(
                Error(f"SWITCHYARD_RETENTION_DAYS: {name!r} is no kind of kept data", hint=hint, id="switchyard.E054")
            )
    return found
