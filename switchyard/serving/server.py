"""Start of the web: one set of uvicorn's options for the demo, containers and services."""

import socket
from importlib.util import find_spec
from typing import Any

import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.utils.module_loading import import_string

from switchyard.api.request_limits import RequestLimits
from switchyard.workers.preflight import refuse_if_wrong

GRACE_S = 20  # requests in flight may complete; event streams stay open for as long as their readers like
MAX_HEAD_BYTES = 32 * 1024  # of a head that is not complete: no page needs more
# A project's own pages take uploads; forms and JSON have Django's ``DATA_UPLOAD_MAX_MEMORY_SIZE`` as well.
BODY_BYTES = 21 * 1024 * 1024


def serve(application: Any, *, sockets: list[socket.socket] | None = None, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT, with the options of :func:`config`."""
    uvicorn.Server(config(application, **options)).run(sockets=sockets)


def config(application: Any, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration of an ASGI application, or of its ``module:name``, with bounded heads.

    Logging is left as the project configured it. Paths are not logged: they may hold secrets, such as those of password
    resets. ``options`` are others of ``uvicorn.Config``.
    """
    bounded: dict[str, Any] = {
        "http": "h11",
        "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": GRACE_S,
    }
    return uvicorn.Config(application, **{**bounded, **options})


def load_application() -> RequestLimits:
    """Return the project's ASGI application behind the limits on requests; exit 78 if the configuration is invalid.

    It is that of ``ASGI_APPLICATION``, else of an ``asgi.py`` beside the project's addresses. A project that had only
    WSGI has neither, and needs none: Django's own is served.
    """
    module = f"{settings.ROOT_URLCONF.rpartition('.')[0]}.asgi".lstrip(".")
    named = getattr(settings, "ASGI_APPLICATION", None) or (f"{module}.application" if find_spec(module) else "")
    application = import_string(named) if named else get_asgi_application()
    if isinstance(application, RequestLimits):  # it has run the checks
        return application
    refuse_if_wrong()
    return RequestLimits(application, body_bytes=BODY_BYTES)
