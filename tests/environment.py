"""Loaded before Django's settings (``-p tests.environment``): a real Valkey and a state folder for the test run."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from apps.platform.embedded.server import EmbeddedServer

STATE_DIR = Path(tempfile.mkdtemp(prefix="switchyard-tests-"))
SERVER = EmbeddedServer(STATE_DIR / "valkey").start()


def _clean_up() -> None:
    SERVER.stop()
    shutil.rmtree(STATE_DIR, ignore_errors=True)


atexit.register(_clean_up)

for variable in [name for name in os.environ if name.startswith(("SWITCHYARD_", "DJANGO_")) or name == "DATABASE_URL"]:
    if variable != "DJANGO_SETTINGS_MODULE":
        del os.environ[variable]
os.environ["SWITCHYARD_STATE_DIR"] = str(STATE_DIR)
os.environ["SWITCHYARD_BROKER_URL"] = SERVER.url
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(STATE_DIR / "metrics")
# What `processes="cores"` stands for, on whatever machine.
os.environ["SWITCHYARD_CORES"] = "2"
(STATE_DIR / "metrics").mkdir()
