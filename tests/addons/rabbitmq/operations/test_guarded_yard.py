"""Every process with the user of its own role on the Redis beside RabbitMQ: the server refuses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.addons.rabbitmq.server import RabbitServer
from tests.chaos.server import server_binary
from tests.integration.serving import test_guarded_yard
from tests.integration.serving.guarded_yard import Browser, GuardedYard
from tests.integration.serving.test_guarded_yard import browser as browser


@pytest.fixture
def yard(rabbitmq_server: RabbitServer, tmp_path: Path) -> Iterator[GuardedYard]:
    yard = GuardedYard(tmp_path, server_binary("redis-server"), place_url=rabbitmq_server.url)
    yield yard
    yard.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_process_needs_more_than_the_rights_of_its_role(yard: GuardedYard, browser: Browser) -> None:
    test_guarded_yard.test_no_process_needs_more_than_the_rights_of_its_role(yard, browser, "scheduler")
