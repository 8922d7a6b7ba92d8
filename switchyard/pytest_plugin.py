"""pytest's plugin of this library: fixtures for tests without a server. Installed with the package.

It imports the library when a fixture is used, so that a project without Django's settings is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from switchyard.testing import MemoryBroker


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting ``switchyard_in_memory``."""
    parser.addini("switchyard_in_memory", "run every test with the broker in memory", type="bool", default=False)


@pytest.fixture
def switchyard_broker() -> Iterator[MemoryBroker]:
    """The broker in memory, empty: nothing needs a server. See ``switchyard.testing``."""
    yield from _memory_broker(eager=False)


@pytest.fixture
def switchyard_eager() -> Iterator[MemoryBroker]:
    """The broker in memory that runs each message where it is sent, for debugging."""
    yield from _memory_broker(eager=True)


def _memory_broker(*, eager: bool) -> Iterator[MemoryBroker]:
    from switchyard.testing import in_memory

    switch = in_memory(eager=eager)
    with switch:
        yield switch.yard.broker


@pytest.fixture
def switchyard_real_broker() -> Iterator[None]:
    """The real broker, on purpose: the test has workers of its own, and is not warned of what it sends."""
    from switchyard.send_warnings import real_broker_is_meant
    from switchyard.testing.yard import out_of_memory

    with real_broker_is_meant(), out_of_memory():
        yield


@pytest.fixture(autouse=True, scope="session")
def _switchyard_in_memory_session(request: pytest.FixtureRequest) -> Iterator[None]:
    """Cover the set-up of classes, modules and the session as well."""
    yield from _in_memory(request.config.getini("switchyard_in_memory"))


@pytest.fixture(autouse=True)
def _switchyard_in_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    wanted = request.config.getini("switchyard_in_memory")
    own = {"switchyard_broker", "switchyard_eager", "switchyard_real_broker"} & set(request.fixturenames)
    yield from _in_memory(wanted and not own)


def _in_memory(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    from switchyard.testing import in_memory

    with in_memory():
        yield
