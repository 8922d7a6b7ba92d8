"""Settings for tests of alerts."""

import dataclasses
from contextlib import AbstractContextManager

from django.conf import settings
from django.test import override_settings


def with_alert_urls(*urls: str, **changes: object) -> AbstractContextManager[None]:
    """Configure the channels."""
    config = dataclasses.replace(settings.SWITCHYARD, alert_urls=urls, **changes)  # type: ignore[arg-type]
    return override_settings(SWITCHYARD=config)
