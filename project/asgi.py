"""The web process: Django behind a limit on request bodies."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from apps.platform.api.body_limit import BodyLimit
from apps.platform.workers.preflight import refuse_if_wrong

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

django_application = get_asgi_application()
refuse_if_wrong()
application = BodyLimit(django_application)
