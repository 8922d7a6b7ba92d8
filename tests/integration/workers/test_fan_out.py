"""An actor that sends itself is ended by a pause and a cancel, while its queue works and while it hangs."""

from __future__ import annotations

import os
import signal

import pytest

from switchyard.broker.interface import Facilities
from switchyard.bulk.models import BulkAct
from switchyard.bulk.runner import BulkRunner
from tests.factories.commands import json_of
from tests.integration.workers.bench.actors import FANNED_OUT, fan_out
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def cancel() -> int:
    """Cancel all that wait or run, and return how many were hit."""
    number = json_of("jobs", "cancel", "--filter", "actor=fan_out")["bulk_act"]
    BulkRunner().go_on()
    act = BulkAct.objects.get(pk=number)
    assert (act.state, act.error) == ("done", "")
    return act.done


def test_a_pause_and_a_cancel_end_it_also_in_a_child_that_hangs(bench: Bench, facilities: Facilities) -> None:
    bench.up("runpool", "urgent")
    family = bench.broker.families["urgent"]
    for hangs in (False, True):
        bench.client.delete(FANNED_OUT)
        fan_out.send()  # this process knows it as well
        wait_for(lambda: bench.waiting("urgent") > 100)
        child = int(bench.client.lindex(FANNED_OUT, 0))  # type: ignore[arg-type]
        if hangs:
            os.kill(child, signal.SIGSTOP)

        json_of("actors", "pause", "fan_out", "--reason", "it sends itself")
        hit = cancel()
        if hangs:
            os.kill(child, signal.SIGCONT)
        else:  # the others of the queue go on
            bench.ran("urgent")
        wait_for(lambda: facilities.transport.stats("urgent").live.running == 0)
        ran = bench.client.llen(FANNED_OUT)
        again = cancel()  # what ran meanwhile has sent
        json_of("actors", "resume", "fan_out")
        bench.ran("urgent")

        wait_for(lambda: family.calls.command("HLEN", family.keys.bodies) == 0)
        assert bench.client.llen(FANNED_OUT) == ran
        assert hit > 100 and again <= 8
        assert json_of("actors", "show", "fan_out")["pauses"] == []
