"""Process that goes on with a queue's purges, and kills itself -9 at a call: ``… URL PREFIX QUEUE CALL``."""

import os
import signal
import sys
import threading
from typing import Any

import redis

from switchyard.broker.admin.purge import finish
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect


class MortalCalls(RedisCalls):
    """Calls of a process that ends during one of them, at a moment that is not known: another thread kills it."""

    def __init__(self, client: redis.Redis, last: int) -> None:
        super().__init__(client)
        self._left = last

    def call(self, *args: Any, **options: Any) -> Any:
        """Run an operation; while the last one is on its way, the process is killed."""
        self._left -= 1
        if self._left == 0:
            threading.Timer(0.0002, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return super().call(*args, **options)


def main() -> None:
    url, prefix, queue, last = sys.argv[1:]
    finish(QueueOperations(MortalCalls(connect(url), int(last)), Keys(prefix=prefix).queue(queue)))


if __name__ == "__main__":
    main()
