from __future__ import annotations

import pytest

from tests.factories.smtp import smtp_server


@pytest.fixture
def smtp(settings):
    with smtp_server() as recorder:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", recorder.port
        settings.EMAIL_TIMEOUT = 5
        yield recorder
