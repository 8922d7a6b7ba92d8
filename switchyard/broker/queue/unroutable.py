"""Index of parked messages: messages whose actor or arguments no worker that fetched them knew, and their adoption.

A parked message is a scheduled one, and due later for any worker. Until then its lane's index lists its call: workers
that cannot run it do not fetch it again, and a worker that knows the call leases it at once, before messages that are
due earlier. The index may be outdated or lost: the messages become due nevertheless.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

from switchyard.broker.errors import BrokerError
from switchyard.broker.keys import Lane
from switchyard.broker.queue.operations import AT_ONCE, Fetched, QueueOperations, fetched
from switchyard.broker.redis.calls import Word
from switchyard.broker.redis.own_keys import number, utf8
from switchyard.broker.redis.scripts import script

KEPT_MS: Final = 20 * 60_000
LIST_BUDGET_S: Final = 0.5
# Characters of a call. Messages with a longer one, such as a thousand names, are not listed and wait until due.
LONGEST_CALL: Final = 2_000
# Members of an index that are compared with the scheduled messages at once.
COMPARED: Final = 1_000
# Calls in one answer, so that a very long index does not keep consumers from work; the next listing continues there.
MOST_CALLS: Final = 200
FIND_ADOPTABLE_S: Final = 5.0

logger = logging.getLogger("switchyard.broker")


class UnroutableLane:
    """The index of the parked messages of one lane.

    A *call* is a message's actor with the form of its arguments, see :func:`switchyard.middleware.arguments.call_of`; a
    worker that knows a call can run all messages parked for it.
    """

    def __init__(self, family: QueueOperations, lane: Lane) -> None:
        self._family = family
        self._lane = lane
        self.name = family.keys.lane_name(lane)
        self._key = family.keys.parked(lane)
        self._due = family.keys.due(lane)
        self._list_from = b"-"
        self._compared = 0

    def add(self, message_id: str, call: str) -> None:
        if len(call) <= LONGEST_CALL:
            self._family.calls.command("ZADD", self._key, 0, f"{call}\n{message_id}")
            self._family.calls.command("PEXPIRE", self._key, KEPT_MS)

    def remove(self, message_id: str, call: str) -> None:
        self._family.calls.command("ZREM", self._key, f"{call}\n{message_id}")

    def calls(self) -> list[str]:
        """Return the calls that have parked messages, 200 at most: one command each, and one more.

        Where there are more, the next listing continues after them. A command that is not answered in 0.5 s raises
        ``BrokerUnavailable``: the consumer has other work.
        """
        found: list[str] = []
        list_from = partial(self._family.calls.command, "ZRANGEBYLEX", self._key, budget_s=LIST_BUDGET_S)
        for _ in range(MOST_CALLS):
            page = list_from(self._list_from, "+", "LIMIT", 0, 1)
            if not page:
                self._list_from = b"-"
                break
            call = page[0].partition(b"\n")[0]
            found.append(utf8(call))
            self._list_from = b"[" + call + b"\x0b"
        return found

    def tidy(self) -> None:
        """Take out what is scheduled no more, as it was cancelled: of 1,000 members, after those of the last call.

        One that is parked again meanwhile is taken out as well, and waits until it is due.
        """
        page = self._family.calls.command("ZRANGE", self._key, self._compared, self._compared + COMPARED - 1)
        due = (
            self._family.calls.command("ZMSCORE", self._due, *(one.rpartition(b"\n")[2] for one in page))
            if page
            else ()
        )
        if gone := [member for member, at in zip(page, due, strict=True) if at is None]:
            self._family.calls.command("ZREM", self._key, *gone)
        self._compared = self._compared + len(page) - len(gone) if len(page) == COMPARED else 0

    def ids(self, call: str, limit: int) -> list[bytes]:
        bounds = (f"[{call}\n", f"({call}\x0b")
        page = self._family.calls.command("ZRANGEBYLEX", self._key, *bounds, "LIMIT", 0, limit)
        return [member.rpartition(b"\n")[2] for member in page]

    def adopt(self, owner: str, call: str, ids: Sequence[bytes]) -> Fetched:
        """Lease those of some ids that are still parked for a call, and record that a worker knows the call.

        The ids are at most 500, and none that the owner's process held when they were listed.
        """
        k = self._family.keys
        keys = [k.bodies, k.due(self._lane), k.leases, k.hold(owner), k.token, k.paused, k.notes, self._key, k.known]
        keys.append(k.actor_pauses)
        args: list[Word] = [owner, call, KEPT_MS, *ids[:AT_ONCE]]
        state, *grants = self._family.calls.call(script("adopt"), keys, args)
        return fetched(owner, [state, [], -1, 0, *grants])

    def known_lately(self, call: str, within_ms: int) -> bool:
        """Return whether a worker that can run a call looked for it within the last ``within_ms``."""
        seen = self._family.calls.command("HGET", self._family.keys.known, call)
        seconds, micros = self._family.calls.command("TIME")
        at_ms = number(seen, self._family.keys.known)
        return int(seconds) * 1000 + int(micros) // 1000 - at_ms < within_ms


class ParkedCalls:
    """Calls with parked messages in one lane that an actor of this process accepts (``knows``), listed every 2 s."""

    def __init__(self, family: QueueOperations, lane: Lane, owner: str, *, knows: Callable[[str], bool]) -> None:
        self._lane = UnroutableLane(family, lane)
        self._owner = owner
        self._knows = knows
        self._find_at_s = 0.0
        self.calls: list[str] = []

    def find(self) -> bool:
        """List the calls anew if 2 s have passed; return whether it was done and found any.

        A server that is away is logged, and the list stays empty until the next time.
        """
        if time.monotonic() < self._find_at_s:
            return False
        self._find_at_s = time.monotonic() + FIND_ADOPTABLE_S
        self.calls = []
        try:
            if calls := self._lane.calls():
                self._lane.tidy()
            known = [call for call in calls if self._knows(call)]
            for call in known:
                self._lane.adopt(self._owner, call, ())  # reports that a worker knows it, before there is credit
        except BrokerError as error:
            logger.warning("%s: unroutable messages cannot be listed now: %s", self._lane.name, error)
            return False
        self.calls = known
        return bool(known)

    def lease(self, count: int, *, ours: Collection[str]) -> Fetched:
        """Lease up to ``count`` messages of the first call, none of ``ours``; drop the call when there were fewer."""
        found = self._lane.ids(self.calls[0], min(count + len(ours), AT_ONCE))
        ids = [id_ for id_ in found if utf8(id_) not in ours][:count]
        adopted = self._lane.adopt(self._owner, self.calls[0], ids)
        if len(adopted.grants) < count:
            self.calls.pop(0)
        return adopted
