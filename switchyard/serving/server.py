"""Start of the web: one set of uvicorn's options for the demo, containers and services."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn
from django.conf import settings
from django.utils.module_loading import import_string

from switchyard.api.request_limits import RequestLimits
from switchyard.workers.preflight import refuse_if_wrong

# Requests in flight may complete; event streams stay open for as long as their readers like.
GRACE_S = 20
# Of a head that is not complete: no page needs more.
MAX_HEAD_BYTES = 32 * 1024


def serve(application: Any, *, sockets: list[socket.socket] | None = None, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT, with the options of :func:`config`."""
    uvicorn.Server(config(application, **options)).run(sockets=sockets)


def config(application: Any, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration with bounded heads.

    Logging is left as the project configured it. Paths are not logged: they may hold secrets, such as those of password
    resets.

    Args:
        application: An ASGI application, or its ``module:name``.
        options: Further options of ``uvicorn.Config``, or others for those set here.
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
    """Return the project's ASGI application behind the limits on requests; exit 78 if the configuration is invalid."""
    default = f"{settings.ROOT_URLCONF.rpartition('.')[0]}.asgi.application"
    application = import_string(getattr(settings, "ASGI_APPLICATION", None) or default)
    if isinstance(application, RequestLimits):  # it has run the checks
        return application
    refuse_if_wrong()
    return RequestLimits(application)
