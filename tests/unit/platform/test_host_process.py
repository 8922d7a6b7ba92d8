"""In a host project, logging stays the host's, and a pool's metrics go to files although nothing prepared for that."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from project.config import BASE_DIR
from switchyard.workers import preflight

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
from switchyard.broker.late_imports import once_imported
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
