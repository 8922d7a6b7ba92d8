"""A defect for tests: a child that loses one message between its consumer and its threads."""

from typing import Any

from dramatiq.broker import Broker
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

TO_LOSE = "bench:lose"


class Losing(Middleware):
    """Middleware that drops the next message once the key ``bench:lose`` is set."""

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        client: Any = broker.client  # type: ignore[attr-defined]
        queue: Any = worker.work_queue
        put = queue.put

        def lose_or_put(item: Any) -> None:
            if not client.delete(TO_LOSE):
                put(item)

        queue.put = lose_or_put
