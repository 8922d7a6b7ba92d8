"""The oldest redis-py that the wheel admits, which ``celery[redis]`` brings: tests of what differs, on that version."""

import os
import re
import sys

import pytest

from project.config import BASE_DIR
from tests.integration.wheel.environments import AWAY, run, uv

LOCK = BASE_DIR / "requirements-oldest.txt"
# An answer in time and none, of a call and of a lane that waits; TLS; a master that is replaced.
DIFFERENT = ("conformance/test_moves.py", "redis/test_calls.py", "redis/test_tls.py", "redis/test_sentinel.py")


def test_messages_move_over_the_oldest_client(tmp_path):
    try:
        uv("pip", "install", "-q", "--target", str(tmp_path), "--no-deps", "--require-hashes", "-r", str(LOCK))
    except AssertionError as error:
        if AWAY.search(str(error)) is None:
            raise
        pytest.skip("the index of packages does not answer")
    own = ("PYTEST_", "SWITCHYARD_", "COVERAGE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{BASE_DIR}"
    version = run(sys.executable, "-c", "import redis; print(redis.__version__)", cwd=BASE_DIR, environment=environment)
    assert f"redis=={version.strip()} " in LOCK.read_text()

    tests = [f"tests/integration/broker/{name}" for name in DIFFERENT]
    command = (sys.executable, "-m", "pytest", "-q", "-m", "not long", "-p", "no:cacheprovider", *tests)
    printed = run(*command, cwd=BASE_DIR, environment=environment)
    assert re.search(r"\d+ passed", printed) or "100%]" in printed, printed
