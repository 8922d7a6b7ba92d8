"""The wheel of ``bin/package``: small, every module of it is imported, and strictly typed code may use it."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

import switchyard
from project.config import BASE_DIR as REPOSITORY
from tests.integration.wheel.environments import Environment, clean_environment, run
from tests.integration.wheel.hosts import write_host

pytestmark = pytest.mark.timeout(900)  # builds, installs and starts processes, beside other tests

# Executed in processes of its own, which it patches before anything else is loaded.
PATCH_FIRST = ("switchyard.workers.gevent_main",)
# Of the extras s3, gcs and traces, and of a tracker: each is imported where an address names it, or the project does.
CLIENTS = {
    "switchyard.files.google": "google", "switchyard.files.s3": "boto3",
    "switchyard.middleware.error_tracker": "sentry_sdk", "switchyard.middleware.tracing": "opentelemetry",
}  # fmt: skip
IMPORT_ALL = """
import importlib, json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "host_settings"
django.setup()
missing = {}
for name in json.loads(sys.argv[1]):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing[name] = error.name
print(json.dumps(missing))
"""
ACTORS = '''
from __future__ import annotations

import dramatiq
from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.jobs.once import once
from switchyard.jobs.services import enqueue_on_commit, report_progress, submit


@dramatiq.actor(queue_name="default")
def count(customer_id: int) -> dict[str, int]:
    """Count something."""
    with once(f"count/{customer_id}") as first:
        if first:
            report_progress(50, 100)
    return {"customer": customer_id}


def send(customer_id: int) -> str:
    """Send it."""
    enqueue_on_commit(count, kwargs={"customer_id": customer_id})
    return count.send(customer_id).message_id


YARD = Yard(
    queues=(Queue("default", 1_000, 60_000, 90_000),),
    pools=(Pool("default", "threads", ("default",), processes=1, slots=4),),
)
'''


def modules(wheel: Path) -> list[str]:
    """Return the dotted names of the wheel's modules that may be loaded into one process."""
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    dotted = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names]
    return [name for name in dotted if name not in PATCH_FIRST and not name.endswith("__main__")]


def test_every_module_is_imported(full: Environment, wheel: Path, tmp_path: Path) -> None:
    names = modules(wheel)

    output = full.run("-W", "error", "-c", IMPORT_ALL, json.dumps(names), cwd=write_host(tmp_path))

    assert len(names) > 300
    assert json.loads(output.splitlines()[-1]) == CLIENTS


def test_module_that_patches_its_process_is_imported_alone(full: Environment, tmp_path: Path) -> None:
    for name in PATCH_FIRST:
        full.run("-W", "error", "-c", f"import {name}", cwd=tmp_path)


def test_without_extras_only_modules_of_an_extra_are_missing_something(
    least: Environment, wheel: Path, tmp_path: Path
) -> None:
    output = least.run("-c", IMPORT_ALL, json.dumps(modules(wheel)), cwd=write_host(tmp_path))

    missing = json.loads(output.splitlines()[-1])
    extras = {"django_tasks", "dramatiq_abort", "ninja", "pydantic", "gevent", "uvicorn", "pika", "pytest"}
    assert set(missing.values()) <= extras | set(CLIENTS.values())
    assert "switchyard.jobs.api" in missing


@pytest.mark.long
def test_strictly_typed_actors_of_a_host_find_the_types(full: Environment, tmp_path: Path) -> None:
    (tmp_path / "actors.py").write_text(ACTORS)
    wrong = tmp_path / "wrong.py"
    wrong.write_text(ACTORS.replace('Queue("default", 1_000', 'Queue(1_000, "default"'))
    mypy = (Path(sys.executable).with_name("mypy"), "--strict", "--python-executable", full.python)
    common = ("--config-file", "/dev/null", "--cache-dir", tmp_path / "cache")

    run(*mypy, *common, "actors.py", cwd=tmp_path, environment=clean_environment())
    refused = run(*mypy, *common, "wrong.py", cwd=tmp_path, environment=clean_environment(), code=1)

    assert 'incompatible type "int"; expected "str"' in refused


FOLDERS = {"middleware": "switchyard/middleware", "switchyard": "switchyard"}


def test_command_prints_the_path_of_the_wheel(clone: Path, wheel: Path) -> None:
    assert wheel == clone / f"dist/switchyard-{switchyard.__version__}-py3-none-any.whl"
    assert "bin/package [FOLDER]" in run(clone / "bin/package", "--help", cwd=clone, environment=clean_environment())


def test_wheel_is_small(wheel: Path) -> None:
    # 1.51 MB, of which 0.13 are the room's two fonts, which no compression makes smaller.
    assert wheel.stat().st_size < 1_600_000


def test_wheel_holds_every_file_of_its_packages_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{new}/{file.relative_to(REPOSITORY / old)}"
        for old, new in FOLDERS.items()
        for file in (REPOSITORY / old).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    metadata = {name.partition("/")[2] for name in names if ".dist-info/" in name}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert metadata == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}
