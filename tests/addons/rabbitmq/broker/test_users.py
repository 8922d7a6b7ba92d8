"""The Redis beside RabbitMQ with a user for each role: nothing that they do is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq

from switchyard.addons.rabbitmq.unique_claims import rights
from switchyard.broker.keys import Keys
from switchyard.broker.redis import acl
from switchyard.broker.redis.connections import connect
from tests.addons.rabbitmq.yards import build_rabbit_yard
from tests.chaos.server import server_binary
from tests.factories.yards import small_yard
from tests.tls import GuardedServer
from tests.waiting import wait_for

DAY_MS = 24 * 3_600_000


def test_a_producer_and_a_worker_have_the_rights_that_they_need(
    rabbit_yard: Callable[..., Any], rabbitmq_server: Any, run_worker: Any, tmp_path: Path
) -> None:
    rabbit_yard()  # empties the queues
    roles = rights(acl.roles([Keys().queue("work")]))
    lines = [acl.line(name, role, prefix="test-rabbit", user=name) for name, role in roles.items()]
    users = "".join(f"{line.replace(' off ', f' on >{name} ')}\n" for line, name in zip(lines, roles, strict=True))
    server = GuardedServer(tmp_path / "server", server_binary("redis-server"), users)
    brokers = {
        role: build_rabbit_yard(
            small_yard(max_retries=1), connect(server.url(role)), Keys("test-rabbit"), url=rabbitmq_server.url
        )
        for role in ("producer", "worker")
    }
    try:
        for broker in brokers.values():
            dramatiq.actor(lambda: None, broker=broker, queue_name="work", actor_name="job")
        producer = brokers["producer"]
        message = producer.actors["job"].message
        sent = producer.enqueue(message()).message_id
        later = producer.enqueue(message(), delay=DAY_MS).message_id
        held = [
            producer.enqueue(producer.actors["job"].message_with_options(unique_key="one")).message_id for _ in range(2)
        ]
        found = brokers["worker"].switchyard.records
        with run_worker("work", "work-retry", broker=brokers["worker"]):
            wait_for(lambda: (record := found.read(sent)) is not None and record.state == "succeeded")
        waiting = producer.switchyard.records.read(later)
        with connect(server.url()) as admin:
            log = admin.execute_command("ACL", "LOG")
    finally:
        for broker in brokers.values():
            broker.close()
        server.close()

    assert log == []
    assert waiting is not None and waiting.state == "scheduled"
    assert held[0] == held[1]
