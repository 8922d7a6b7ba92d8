"""An image, and a yard of containers on it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from project.topology import YARD
from switchyard.broker.redis import acl
from tests.chaos.postgres import PostgresUnderTest
from tests.chaos.server import server_binary
from tests.containers.engine import Engine
from tests.containers.yard import ContainerYard
from tests.tls import Authority, GuardedServer


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
def yard(engine: Engine, tmp_path: Path) -> Iterator[ContainerYard]:
    """A yard on a PostgreSQL and a Redis of this machine, which takes TLS alone and the users of the rendered file."""
    users = re.sub(
        r"user (\S+) off",
        r"user \1 on >\1",
        acl.render(acl.roles(YARD.keys.queue(queue.name) for queue in YARD.queues)),
    )
    authority = Authority(tmp_path / "authority")
    broker = GuardedServer(tmp_path / "server", server_binary("redis-server"), users, authority=authority)
    try:
        with PostgresUnderTest() as postgres:
            yard = ContainerYard(engine, broker, authority.file, postgres.url)
            try:
                yield yard
            finally:
                yard.close()
    finally:
        broker.close()
