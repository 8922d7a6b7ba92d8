"""Values of every type go through a real broker into children of every kind, and come out the same."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis_broker import RedisBroker
from switchyard.wiring import build_yard
from tests.integration.workers.bench.yard import YARD
from tests.integration.workers.conftest import Bench
from tests.integration.workers.typed.arguments import GOT, NAMES, QUEUES, declare
from tests.unit.broker.queue.arguments.kinds import KINDS, told
from tests.waiting import wait_for

VALUES = st.fixed_dictionaries({name: KINDS[annotation] for name, annotation in NAMES.items()})
BATCH = 5
EXAMPLES = 12  # tests/unit/broker/queue/arguments has hundreds for each type


@pytest.fixture(scope="module")
def pools(module_bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    """All pools of the small yard, up."""
    process = module_bench.start("runpools", settings="typed_settings")
    module_bench.wait_for_log("pools: all ready")
    yield process


@pytest.fixture(scope="module")
def sender(module_bench: Bench) -> Iterator[RedisBroker]:
    """A broker with the whole stack, as a web process has it."""
    broker = build_yard(YARD, module_bench.client, Keys())
    yield broker
    broker.close()


def test_every_type_comes_out_the_same_of_threads_processes_and_greenlets(
    module_bench: Bench, pools: subprocess.Popen[bytes], sender: RedisBroker
) -> None:
    actors, numbers = declare(broker=sender), count()

    @settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.lists(VALUES, min_size=BATCH, max_size=BATCH))
    def check(batch: list[dict[str, Any]]) -> None:
        sent: dict[str, dict[str, str]] = {}
        messages = []
        for values in batch:
            for queue in QUEUES:
                token = f"{queue} {next(numbers)}"
                sent[token] = {name: told(value) for name, value in values.items()}
                messages.append(actors[queue].message(token, **values))
        sender.enqueue_many(messages)

        wait_for(lambda: module_bench.client.llen(GOT) == len(sent))
        got = dict(module_bench.notes(GOT))
        module_bench.client.delete(GOT)
        assert got == sent

    check()

    assert next(numbers) == EXAMPLES * BATCH * len(QUEUES)
    assert json.dumps(module_bench.log()).count("ArgumentMismatch") == 0
