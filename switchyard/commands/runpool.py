"""``manage.py switchyard runpool``: run one pool's workers."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from switchyard.broker.errors import NotFound
from switchyard.conf import declared_yard
from switchyard.console.commands import port, refuse, seconds, show_examples
from switchyard.workers.preflight import prepare
from switchyard.workers.shared.fork import name_process, run_or_crash
from switchyard.workers.supervisor.supervisor import GRACE_S, Supervisor

EXAMPLES = """examples:
  manage.py switchyard runpool default
  manage.py switchyard runpool slow --metrics-port 9100 --metrics-host 0.0.0.0 --grace 60"""


class Command(BaseCommand):
    """One supervisor and its children, until SIGTERM. Exits 0 drained, 70 crashed, 78 refused to start."""

    help = "Run one pool's workers until SIGTERM or SIGINT drains them; a second signal stops them at once."
    requires_system_checks = []  # refuse_if_wrong runs them, and exits as promised

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)
        parser.add_argument("pool", metavar="NAME", help="a pool of the topology")
        parser.add_argument("--metrics-port", type=port, default=0, help="default: a free one, which is reported")
        parser.add_argument("--metrics-host", default="127.0.0.1", help="default: loopback, only this machine reads it")
        text = "seconds for running tasks to end, default 25"
        parser.add_argument("--grace", type=seconds, default=GRACE_S, help=text)

    def handle(self, *, metrics_host: str, metrics_port: int, grace: float, **options: Any) -> None:
        try:
            pool = declared_yard().pool(options["pool"])
        except NotFound as error:
            refuse(str(error))
        prepare([pool])
        name_process(f"pool {pool.name}")
        try:
            supervisor = Supervisor(pool, metrics_port=metrics_port, metrics_host=metrics_host, grace_s=grace)
        except OSError as error:
            where = f"{metrics_host}:{metrics_port}"
            refuse(f"pool {pool.name}: cannot serve metrics at {where} ({error.strerror}); name another --metrics-port")
        sys.exit(run_or_crash(supervisor.run))
