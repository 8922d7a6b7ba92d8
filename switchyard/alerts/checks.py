"""System check of SWITCHYARD_ALERT_URLS."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.core.checks import CheckMessage, Error

from switchyard.conf import declared_yard, switchyard_settings
from switchyard.setting_values import InvalidSetting


def check_alert_urls(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse alert URLs that no channel can use, and rules for labels that no entry has."""
    urls = switchyard_settings().alert_urls
    if not urls:
        return []
    from switchyard.alerts.channels import channels, parse  # loads urllib3: only where there are addresses

    entries = [partial(parse, url, position) for position, url in enumerate(urls, start=1)]
    refused = [error for entry in entries for error in _refusals(entry)] or _refusals(partial(channels, urls))
    if refused:
        return refused
    known = list(channels(urls))
    return [
        Error(
            f"alert rule of {rule.finding}: no entry of SWITCHYARD_ALERT_URLS has the label {label!r}",
            hint=f"They are {', '.join(known)}; write it before an entry, as in {label}=mailto:ops@example.com.",
            id="switchyard.E043",
        )
        for rule in declared_yard().alerts
        for label in (*rule.channels, *rule.escalate_to)
        if label not in known
    ]


def check_apprise(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse alert URLs that apprise cannot use. Loads apprise for them: for deployments, not for each start."""
    urls = switchyard_settings().alert_urls
    if not urls or check_alert_urls(None):
        return []
    from switchyard.alerts.channels import refuse_unusable

    return _refusals(partial(refuse_unusable, urls))


def _refusals(use: Callable[[], object]) -> list[CheckMessage]:
    try:
        use()
    except InvalidSetting as error:
        return [Error(f"{error.name}: {error.fact}", hint=error.remedy, id="switchyard.E043")]
    return []
