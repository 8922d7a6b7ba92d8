"""An image, and a yard of containers on it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.postgres import PostgresUnderTest
from tests.containers.engine import Engine
from tests.containers.yard import ContainerYard
from tests.environment import SERVER


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """An engine with the image of the release ``one``."""
    for program in ("podman", "runc", "buildah", "mmdebstrap"):
        assert shutil.which(program), (
            f"{program} is not installed; run: apt-get install podman runc buildah catatonit mmdebstrap"
        )
    engine = Engine(Path(tempfile.mkdtemp(prefix="switchyard-containers-")))
    try:
        engine.make_base()
        engine.fetch_wheels("s3", "rabbitmq")
        engine.build("one")
        yield engine
    finally:
        engine.remove()


@pytest.fixture
def yard(engine: Engine, valkey: object) -> Iterator[ContainerYard]:
    """A yard on a PostgreSQL and a Valkey of this machine, migrated and with sample rows."""
    with PostgresUnderTest() as postgres:
        yard = ContainerYard(engine, f"redis://127.0.0.1:{SERVER.port}/0", postgres.url)
        try:
            yield yard
        finally:
            yard.close()
