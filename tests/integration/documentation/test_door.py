"""The how-to sends, follows and cancels a job from a shell, and with clients that are generated from the document."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from project.asgi import application
from switchyard.api.tokens import create_token
from switchyard.broker.interface import Facilities
from switchyard.jobs.queries import find_job
from tests.factories.callers import api_user
from tests.factories.web import serving
from tests.integration.wheel.environments import run as run_program
from tests.unit.documentation.pages import code_blocks, read

PAGE = read("docs/how-to/send-a-job-over-http.md")
SEND, FOLLOW, PYTHON_CLIENT, TYPESCRIPT_CLIENT = code_blocks(PAGE, "sh")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def yard(facilities: Facilities) -> Iterator[dict[str, str]]:
    """The environment of a client of a served yard."""
    _, token = create_token(owner=api_user("ada"), scopes=("submit", "read"), name="client")
    with serving(application) as address:
        yield {**os.environ, "YARD": address, "TOKEN": token}


def run(command: str, environment: dict[str, str], folder: Path) -> str:
    return run_program("bash", "-euc", command, cwd=folder, environment=environment, timeout_s=300)


def test_a_shell_sends_cancels_and_follows_a_job(yard: dict[str, str], tmp_path: Path) -> None:
    answers = [json.loads(run(SEND, yard, tmp_path)) for _ in range(2)]
    followed = run(FOLLOW, yard | {"JOB": answers[0]["job_id"]}, tmp_path)

    job = find_job(answers[0]["job_id"])
    assert answers[0] == answers[1]
    assert job is not None and (job.actor, job.state) == ("generate_report", "cancelled")
    assert "event: end" in followed and '"cancelled"' in followed


@pytest.mark.long
def test_a_client_that_is_generated_for_python_sends_follows_and_cancels(yard: dict[str, str], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment = yard | {"PATH": f"{tmp_path / 'venv/bin'}:{yard['PATH']}"}
    environment.pop("PYTHONPATH", None)
    run(PYTHON_CLIENT, environment, tmp_path)
    (tmp_path / "client.py").write_text(code_blocks(PAGE, "python")[1])

    followed = run("python client.py", environment, tmp_path)

    assert "event: end" in followed and '"cancelled"' in followed


@pytest.mark.long
def test_a_client_that_is_generated_for_typescript_sends_follows_and_cancels(
    yard: dict[str, str], tmp_path: Path
) -> None:
    [code] = code_blocks(PAGE, "ts")
    (tmp_path / "client.mts").write_text(code)
    run(TYPESCRIPT_CLIENT, yard, tmp_path)
    flags = "--strict --module nodenext --target es2022 --skipLibCheck"

    followed = run(f"npx tsc {flags} client.mts && node client.mjs", yard, tmp_path)

    assert "event: end" in followed and '"cancelled"' in followed
