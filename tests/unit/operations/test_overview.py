"""Holders of the slots of a queue's pools, as words."""

from __future__ import annotations

from apps.platform.jobs.running import Holder, RunningJob
from apps.platform.operations.overview import slot_holders
from tests.unit.operations.yards import YARD


def job(actor: str, pool: str) -> RunningJob:
    return RunningJob(
        id="1", actor=actor, queue="mail", owner="", attempt=1, since=None, limit_ms=None,
        holder=Holder(pool, pool=pool), progress=None, arguments="", cancel_requested=False,
    )  # fmt: skip


def test_the_two_with_the_most_slots_are_named() -> None:
    runs = [job(actor, "mail") for actor in ("export", "news", "export", "news", "export", "one", "two")]

    assert slot_holders(YARD, runs) == {"mail": "3 × export, 2 × news, 2 × others"}


def test_what_runs_in_the_pool_of_retries_holds_no_slot_of_the_queue() -> None:
    assert slot_holders(YARD, [job("export", "retries")]) == {}
    assert slot_holders(YARD, [job("hook", "hooks")]) == {"hooks": "1 × hook"}
