"""Parked messages: no worker that had them knows their actor or their arguments. Who does finds them on a list.

A parked message is a scheduled one: due later, for whoever is there then. Meanwhile its lane's list says what it calls,
so that workers that cannot run it need not look at it again and again, and one that can takes it at once, past the
others. The list may be behind or lost: the message is due nevertheless.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from broker.keys.queue_keys import Lane
from broker.queue.operations import AT_ONCE, QueueOperations
from broker.queue.results import Fetched, fetched
from broker.redis.calls import Word
from broker.redis.scripts import script

KEPT_MS: Final = 20 * 60_000
LOOK_S: Final = 0.5
# A call with a thousand names is nobody's: its messages wait until they are due.
LONGEST_CALL: Final = 2_000
# Found at one look, so that a list of very many does not keep its readers from work; the next look goes on from there.
MOST_CALLS: Final = 200


class UnroutableLane:
    """The list of what is parked in one lane.

    A *call* is what a message asks of a worker, see :func:`middleware.arguments.call_of`; whoever knows it can run all
    that are parked for it. Every method may raise what :meth:`broker.redis.calls.RedisCalls.call` raises.
    """

    def __init__(self, family: QueueOperations, lane: Lane) -> None:
        self._family = family
        self._lane = lane
        self.name = family.keys.lane_name(lane)
        self._key = family.keys.parked(lane)
        self._look_from = b"-"

    def add(self, message_id: str, call: str) -> None:
        """Put a message on the list."""
        if len(call) <= LONGEST_CALL:
            self._family.calls.command("ZADD", self._key, 0, f"{call}\n{message_id}")
            self._family.calls.command("PEXPIRE", self._key, KEPT_MS)

    def remove(self, message_id: str, call: str) -> None:
        """Take a message off the list."""
        self._family.calls.command("ZREM", self._key, f"{call}\n{message_id}")

    def calls(self) -> list[str]:
        """Return the calls that something is parked for, 200 at most: one command each, and one more.

        Where there are more, the next look finds those. Whoever looks has better to do than to wait for a server that
        is away: it is given up after half a second.
        """
        found: list[str] = []
        look = partial(self._family.calls.command, "ZRANGEBYLEX", self._key, budget_s=LOOK_S)
        for _ in range(MOST_CALLS):
            page = look(self._look_from, "+", "LIMIT", 0, 1)
            if not page:
                self._look_from = b"-"
                break
            call = page[0].partition(b"\n")[0]
            if len(call) <= LONGEST_CALL:
                found.append(str(call, "utf-8", "replace"))
            self._look_from = b"[" + call + b"\x0b"
        return found

    def ids(self, call: str, limit: int) -> list[bytes]:
        """Return ids that are parked for a call."""
        bounds = (f"[{call}\n", f"({call}\x0b")
        page = self._family.calls.command("ZRANGEBYLEX", self._key, *bounds, "LIMIT", 0, limit)
        return [member.rpartition(b"\n")[2] for member in page]

    def adopt(self, owner: str, call: str, ids: Sequence[bytes]) -> Fetched:
        """Lease those of some ids that are still parked for a call, and note that the owner knows it.

        Args:
            ids: At most 500, none of which the owner's process had when they were looked up.
        """
        k = self._family.keys
        keys = [k.bodies, k.due(self._lane), k.leases, k.hold(owner), k.token, k.paused, k.notes, self._key, k.known]
        args: list[Word] = [owner, call, KEPT_MS, *ids[:AT_ONCE]]
        state, *grants = self._family.calls.call(script("adopt"), keys, args)
        return fetched(owner, [state, [], -1, 0, *grants])

    def known_lately(self, call: str, within_ms: int) -> bool:
        """Say whether a worker that knows a call has looked for it in the last ``within_ms``."""
        seen = self._family.calls.command("HGET", self._family.keys.known, call)
        seconds, micros = self._family.calls.command("TIME")
        return seen is not None and int(seconds) * 1000 + int(micros) // 1000 - int(seen) < within_ms
