from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from apps.retention.kinds import kinds


class RetentionConfig(AppConfig):
    name = "apps.retention"
    label = "switchyard_retention"
    verbose_name = "Retention"
    room_pages = (("Retention", "switchyard-retention", "archive", "", "switchyard_operations.view_operations"),)

    def ready(self) -> None:
        checks.register(check_retention_days, "switchyard")


def check_retention_days(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Refuse a kind that no installed app keeps: its data would stay for ever."""
    known = [kind.name for kind in kinds()]
    found: list[checks.CheckMessage] = []
    for name in settings.RETENTION_DAYS:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the kinds are {', '.join(sorted(known))}"
            found.append(
                checks.Error(
                    f"SWITCHYARD_RETENTION_DAYS: {name!r} is not a kind of kept data", hint=hint, id="switchyard.E054"
                )
            )
    return found
