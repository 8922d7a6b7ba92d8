"""The pools that the how-to pages show can be declared, and do what the pages say."""

from __future__ import annotations

from dataclasses import replace

from django.conf import settings

from switchyard.broker.topology import Pool, Queue, Yard
from switchyard.workers.checks import check_yard
from tests.unit.documentation.pages import code_blocks, read


def test_pool_that_is_niced_and_pinned_fits_the_queue_of_its_page() -> None:
    declared, pinned = code_blocks(read("docs/how-to/add-a-queue-and-a-pool.md"), "python")
    shown: Pool = eval(pinned, {"Pool": Pool})
    own = settings.SWITCHYARD.topology
    names = {"Yard": Yard, "Queue": Queue, "Pool": Pool, "MINUTE": 60_000}
    exec(declared.replace("...,  # those that are there", "*QUEUES,").replace("...,", "*POOLS,"),
         names | {"QUEUES": own.queues, "POOLS": own.pools}, found := {})  # fmt: skip

    yard: Yard = found["YARD"]

    assert check_yard(yard) == []
    assert check_yard(Yard(yard.queues, (*yard.pools[:-1], shown))) == []
    assert (shown.nice, shown.cpus) == (10, (2, 3))
    assert replace(shown, nice=0, cpus=()) == yard.pools[-1]


def test_yard_of_the_reference_fits_together() -> None:
    [code] = code_blocks(read("docs/reference/topology.md"), "python")
    exec(code, shown := {})

    assert check_yard(shown["YARD"]) == []
