"""The wheel, built once for all tests of this folder, and environments with it."""

from __future__ import annotations

import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from devtools.wheel.__main__ import build
from tests.integration.wheel.environments import Environment, Index
from tests.integration.wheel.packages import write_wheels

EXTRAS = ("unfold", "api", "gevent", "embedded", "postgres")
# What runs the tests of broker and middleware.
TEST_PACKAGES = ("pytest", "pytest-django", "pytest-timeout", "hypothesis", "time-machine")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the sources as they are."""
    return build(tmp_path_factory.mktemp("dist"))


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
