"""Situations of the yard, for its pictures."""

from __future__ import annotations

from devtools.room import actors
from switchyard.audit.services import Who
from switchyard.broker.clock import now_ms
from switchyard.jobs.services import submit
from switchyard.queues import services as queues

OPERATOR = Who("a.lind", "page")
SLOTS = 8
WAITING = 60


def make_default_late() -> None:
    """Fill every slot of the queue ``default`` with jobs of one actor, and have others wait behind them."""
    queues.resume("images", who=OPERATOR, reason="the picture host is there again")
    actors.hold_file().touch()
    for number in range(SLOTS):
        submit(actors.import_prices, owner="user:1", kwargs={"supplier": f"supplier-{number}", "at": now_ms()})
    for number in range(WAITING):
        submit(actors.thank, owner="user:2", kwargs={"customer": f"customer-{number}"})
