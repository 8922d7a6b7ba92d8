"""``manage.py switchyard runscheduler``, ``runhistory``, ``runweb``: what runs beside the pools."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from switchyard.console.commands import port, refuse, show_examples
from switchyard.long_running import run_until_signal
from switchyard.setting_values import WEB_SERVER, InvalidSetting, refuse_without
from switchyard.workers.preflight import log_to_standard_error, refuse_if_wrong


class RunningCommand(BaseCommand):
    """Command that runs until SIGTERM or SIGINT. Exits 0 after these, 70 crashed, 78 with an invalid configuration."""

    requires_system_checks = []  # refuse_if_wrong, or the web's application, runs them, and exits as promised
    examples = ""

    def add_arguments(self, parser: CommandParser) -> None:
        if self.examples:
            show_examples(parser, self.examples)


class RunHistory(RunningCommand):
    """The history writer. Of several writers one writes, the others stand by."""

    help = "Write ended jobs into the database, at the lowest priority. Several may run; one writes."
    examples = """examples:
  manage.py switchyard runhistory                        beside pools that run one by one; runpools starts one itself"""

    def handle(self, *args: Any, **options: Any) -> None:
        from switchyard.history.writer import run_until_stopped

        log_to_standard_error()
        refuse_if_wrong()
        run_until_stopped()


class RunScheduler(RunningCommand):
    """The scheduler. Of several schedulers one leads, the others stand by."""

    help = "Run the scheduler: periodic actors, alerts, dead-letter rows. Several may run; one leads."

    def handle(self, *args: Any, **options: Any) -> None:
        from switchyard.alerts.checks import check_apprise

        log_to_standard_error()
        refuse_if_wrong()
        if wrong := check_apprise(None):  # loaded here, before it leads: nothing else sends alerts by it
            refuse(*(f"{message.msg}; {message.hint}" for message in wrong))
        run_until_signal(scheduler(), name="scheduler", logger="switchyard.scheduler", stop_within_s=5.0)


def scheduler() -> Callable[[threading.Event], None]:
    """Return the run of a scheduler with all its maintenance tasks; imports their modules, before threads begin."""
    from switchyard.operations.alerting import HEARTBEAT_S, FindingAlerts, beat
    from switchyard.schedules.runner import MaintenanceTask, Scheduler, maintenance_tasks

    findings = FindingAlerts()
    tasks = (
        *maintenance_tasks(),
        MaintenanceTask("findings", 5.0, findings.check),
        MaintenanceTask("heartbeat", HEARTBEAT_S, partial(beat, findings)),
    )
    return Scheduler(maintenance_tasks=tasks).run


class RunWeb(RunningCommand):
    """The project's ASGI application on uvicorn, with bounded requests."""

    help = "Serve the web on uvicorn, with limits on heads, bodies and requests."
    examples = """examples:
  manage.py switchyard runweb                             on 127.0.0.1:8000
  manage.py switchyard runweb --host 0.0.0.0 --port 80    behind a proxy, see ops/nginx.conf"""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=port, default=8000, help="port, 0 for a free one (default: %(default)s)")

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        # Imported here: a host that serves its web otherwise needs no uvicorn.
        try:
            refuse_without("runweb", WEB_SERVER, "the web")
        except InvalidSetting as error:
            refuse(str(error))
        from switchyard.serving.server import load_application, serve

        log_to_standard_error()
        serve(load_application(), host=host, port=port)
