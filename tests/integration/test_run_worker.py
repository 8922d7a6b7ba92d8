"""The helper that runs a worker in a test refuses a queue that nobody declared."""

from __future__ import annotations

import pytest
import redis

from tests.conftest import RunWorker


def test_a_worker_of_an_undeclared_queue_fails_its_test(valkey: redis.Redis, run_worker: RunWorker) -> None:
    words = r"queue 'defalt' is not declared; the yard has .*default"
    with pytest.raises(pytest.fail.Exception, match=words), run_worker("defalt"):
        pass
