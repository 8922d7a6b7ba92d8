"""Benchmark of the outbox: its cost for a transaction that sends, and the delay of what the relay sends.

A transaction writes a row and sends a message, in rounds that alternate between waiting for the commit and the outbox;
the cost is the median of the differences. For the relay a commit sends nothing, as if its process died there; the time
until the broker has the message is that of ``runhistory`` in a process of its own, on an idle machine.

    python -m benchmarks.outbox [--postgres] [--rounds 200] [--left 200]
"""

import argparse
import contextlib
import time
from statistics import median, quantiles
from typing import Any

from benchmarks import postgres
from benchmarks.throwaway_yard import throwaway_yard

BATCH = 10


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--left", type=int, default=200)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        environment = {"DATABASE_URL": stack.enter_context(postgres.temporary())} if given.postgres else {}
        yard = stack.enter_context(throwaway_yard(**environment))
        import django

        django.setup()
        import dramatiq

        broker: Any = dramatiq.get_broker()

        @dramatiq.actor(queue_name="default")
        def work(number: int) -> None:
            """Do nothing."""

        _print("one transaction, outbox over on_commit", _costs(broker, work, given.rounds))
        broker.flush("default")
        yard.start("runhistory", ready="history writer started")
        _print("left at the commit, until the broker has it", _delays(broker, work, given.left))


def _costs(broker: Any, work: Any, rounds: int) -> list[float]:
    from django.contrib.auth.models import Group
    from django.db import transaction

    def batch(*, keeps_rows: bool) -> float:
        broker.postpone.keeps_rows = keeps_rows
        began_s = time.perf_counter()
        for number in range(BATCH):
            with transaction.atomic():
                Group.objects.create(name=f"{time.perf_counter_ns()}")
                work.send(number)
        return (time.perf_counter() - began_s) / BATCH

    batch(keeps_rows=True)
    return [batch(keeps_rows=True) - batch(keeps_rows=False) for _ in range(rounds)]


def _delays(broker: Any, work: Any, count: int) -> list[float]:
    from django.db import transaction

    family, found = broker.lane("default")[0], []
    broker.postpone.keeps_rows, broker.postpone.flush = True, lambda alias, waiting: None
    for number in range(count):
        with transaction.atomic():
            message = work.send(number)
        began_s = time.perf_counter()
        while not family.calls.command("HEXISTS", family.keys.bodies, message.message_id):
            time.sleep(0.005)
        found.append(time.perf_counter() - began_s)
        time.sleep(number * 0.618 % 0.5)  # the next one meets another moment of the relay's pause
    return found


def _print(what: str, seconds: list[float]) -> None:
    low, _, high = quantiles(seconds, n=4)
    p99 = quantiles(seconds, n=100)[98]
    middle = f"median {median(seconds) * 1e3:.2f} ms, quartiles {low * 1e3:.2f} and {high * 1e3:.2f}"
    print(f"{what}: {middle}, p99 {p99 * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
