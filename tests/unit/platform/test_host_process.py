"""Processes of a host project: its logging, metrics, commands, refused tests, and a web without ASGI."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from project.config import BASE_DIR
from switchyard.commands import COMMANDS
from switchyard.serving import server
from switchyard.workers import preflight
from tests.factories.commands import manage

METRICS = """
import sys
from pathlib import Path
from prometheus_client import CollectorRegistry, Counter
from switchyard.workers.metrics import PoolFolder
PoolFolder(Path(sys.argv[1]), "default")
Counter("counted", "Counted.", ("queue",), registry=CollectorRegistry()).labels("default").inc()
print(*sorted(file.name.partition("_")[0] for file in (Path(sys.argv[1]) / "default").glob("*.db")))
"""
LOGGING = """
import logging, sys
from switchyard.broker.process import once_imported
from switchyard.middleware import logs
logging.basicConfig(format="host: %(levelname)s %(name)s %(message)s", stream=sys.stdout, level=logging.INFO)
once_imported("structlog", logs.use_standard_logging)
import structlog
log = structlog.get_logger("switchyard.jobs")
log.debug("not shown")
log.info("succeeded", queue="default", note="two\\nlines 100%")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def run(code: str, *arguments: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(BASE_DIR)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_pools_metrics_go_to_its_files_in_a_process_that_set_no_folder(tmp_path: Path) -> None:
    assert run(METRICS, str(tmp_path)).split() == ["counter"]


def test_logs_go_through_the_hosts_handlers_whenever_structlog_is_imported() -> None:
    lines = run(LOGGING).splitlines()

    assert lines[0] == "host: INFO switchyard.jobs succeeded queue=default note=two\\nlines 100%"
    assert lines[1] == "host: ERROR switchyard.jobs failed"
    assert lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("handled", [True, False])
def test_a_process_that_works_logs_even_where_nothing_is_configured(
    handled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured: list[str] = []
    monkeypatch.setattr(preflight.logs, "configure", lambda log_format, **named: configured.append(log_format))
    monkeypatch.setattr(logging.Logger, "hasHandlers", lambda logger: handled)

    preflight.log_to_standard_error()

    assert configured == ([] if handled else ["console"])


def test_a_command_is_run_with_its_own_arguments() -> None:
    done = manage("switchyard", "topology", "--json")

    assert done.returncode == 0
    assert done.stdout == manage("topology", "--json").stdout
    assert json.loads(done.stdout)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("runpool", "nowhere"), 78, "pool 'nowhere' is not declared"),
        (("runpol",), 2, "switchyard: there is no command 'runpol'; did you mean runpool?\n"),
    ],
)
def test_a_refusal_keeps_its_exit_code(words: tuple[str, ...], code: int, said: str) -> None:
    done = manage("switchyard", *words)

    assert done.returncode == code
    assert said in done.stderr


def test_without_a_command_all_are_listed_and_the_exit_code_is_2() -> None:
    done = manage("switchyard")

    assert done.returncode == 2
    listed = [line.split()[0] for line in done.stdout.partition("commands:\n")[2].splitlines()]
    assert listed == list(COMMANDS)


def test_manage_py_test_is_refused_with_the_command_to_run() -> None:
    with pytest.raises(CommandError, match=r"run bin/test or \.venv/bin/pytest"):
        call_command("test")


@mock.patch.object(server, "refuse_if_wrong")
def test_a_project_without_asgi_is_served(_: object, settings: Settings) -> None:
    settings.ROOT_URLCONF = "urls"

    application = server.load_application()

    assert callable(application) and application.body_bytes == server.BODY_BYTES, "its pages may take uploads"
