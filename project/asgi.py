"""The web process: Django behind limits on request bodies and running requests."""

import os

from django.core.asgi import get_asgi_application

from switchyard.api.request_limits import RequestLimits
from switchyard.workers.preflight import refuse_if_wrong

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

django_application = get_asgi_application()
refuse_if_wrong()
# Pictures of up to 20 MiB; every other body has at most 1 MiB.
application = RequestLimits(django_application, large_routes=("/api/v1/thumbnails",))
