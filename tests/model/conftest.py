"""Servers of their own for the model test: Valkey and Redis."""

from collections.abc import Iterator

import pytest

from tests import same_examples as same_examples
from tests.chaos.server import SERVER_NAMES, ServerUnderTest, server_binary


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever asks for a server on Valkey and on Redis, and name it in the test's id."""
    if "server_name" in metafunc.fixturenames:
        metafunc.parametrize("server_name", SERVER_NAMES)


@pytest.fixture
def server(server_name, tmp_path) -> Iterator[ServerUnderTest]:
    with ServerUnderTest(tmp_path / "server", server_binary(server_name)) as server:
        yield server
