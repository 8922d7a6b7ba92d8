"""System check of SWITCHYARD_ALERT_URLS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error

from switchyard.conf import switchyard_settings
from switchyard.setting_values import InvalidSetting


def check_alert_urls(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse alert URLs that no channel can use."""
    found: list[CheckMessage] = []
    for position, url in enumerate(switchyard_settings().alert_urls, start=1):
        from switchyard.alerts.channels import parse  # loads urllib3: only where there are addresses

        try:
            parse(url, position)
        except InvalidSetting as error:
            fact, _, remedy = str(error).partition("; ")
            found.append(Error(fact, hint=remedy, id="switchyard.E043"))
    return found
