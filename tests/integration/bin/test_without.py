"""``bin/test --without redis-server`` leaves out the tests that start it, and no others; ``pytest`` finds all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

BROKER = "tests/integration/broker/"
PATHS = (
    f"{BROKER}conformance/test_letters.py",
    f"{BROKER}redis/test_sentinel.py",
    f"{BROKER}redis/test_tls.py",
    "tests/integration/doctor/test_server.py",
)
REDIS_FILES = ("test_sentinel.py", "test_tls.py")


def collected(without: str) -> set[str]:
    """Return the ids of the tests that a run without some programs has."""
    command = [Path(sys.executable).with_name("pytest"), "--collect-only", *PATHS]
    own = {"PYTHONPATH", "DJANGO_SETTINGS_MODULE"}
    environment = {name: value for name, value in os.environ.items() if name not in own} | {"TEST_WITHOUT": without}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, cwd=settings.BASE_DIR, env=environment
    )
    return {line for line in done.stdout.splitlines() if "::" in line}


def needs_redis(name: str) -> bool:
    file, _, rest = name.partition("::")
    return (
        file.endswith(REDIS_FILES) or rest.endswith(("[tls]", "[redis]")) * (BROKER in file) or "[redis-server" in rest
    )


@pytest.mark.needs()
def test_all_and_only_the_tests_that_start_the_program_are_left_out() -> None:
    everything = collected("")

    without_redis = collected("redis-server promtool")

    assert everything - without_redis == {name for name in everything if needs_redis(name)}
    assert any(name.endswith("[atomic]") for name in without_redis)
