"""The web process: Django behind a limit on request bodies."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from apps.platform.api.body_limit import BodyLimit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

application = BodyLimit(get_asgi_application())
