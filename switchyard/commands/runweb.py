"""``manage.py switchyard runweb``: serve the web with its limits."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from switchyard.console.commands import port, refuse, show_examples
from switchyard.setting_values import WEB_SERVER, InvalidSetting, refuse_without
from switchyard.workers.preflight import log_to_standard_error

EXAMPLES = """examples:
  manage.py switchyard runweb                             on 127.0.0.1:8000
  manage.py switchyard runweb --host 0.0.0.0 --port 80    behind a proxy, see ops/nginx.conf"""


class Command(BaseCommand):
    """Serve the project's ASGI application on uvicorn until SIGTERM or SIGINT, with bounded requests."""

    help = "Serve the web on uvicorn, with limits on heads, bodies and requests."
    requires_system_checks = []  # the application runs those of the yard, and exits as promised

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=port, default=8000, help="port, 0 for a free one (default: %(default)s)")
        show_examples(parser, EXAMPLES)

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        """Serve; exit 78 if the configuration is invalid."""
        # Imported here: a host that serves its web otherwise needs no uvicorn.
        try:
            refuse_without("runweb", WEB_SERVER, "the web")
        except InvalidSetting as error:
            refuse(str(error))
        from switchyard.serving.server import load_application, serve

        log_to_standard_error()
        serve(load_application(), host=host, port=port)
