"""A pool's children: started, replaced, ended at a limit, and what each of them leaves is settled."""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from dramatiq.broker import Broker

from apps.platform.workers.child.spawn import Assignment, start_child
from apps.platform.workers.shared.child_table import ChildState, ChildTable, Running
from apps.platform.workers.shared.fork import describe_exit, resident_bytes
from apps.platform.workers.shared.signal_pipe import INTERRUPT
from apps.platform.workers.shared.stack_files import last_words, stacks_file
from apps.platform.workers.supervisor.cancellation import LOOK_EVERY_S, CancellationWatch
from apps.platform.workers.supervisor.exit_cause import CLEAN_EXITS, ExitCause, blame, shown
from apps.platform.workers.supervisor.heartbeats import Heartbeats
from apps.platform.workers.supervisor.leases import ChildLeases, Leftovers
from apps.platform.workers.supervisor.processes import Process, ProcessSet, send
from broker.topology import MOST_ALONE, Pool, Yard

# A child that was told to end for a task over its hard limit, or that does not stop, is killed so much later.
KILL_AFTER_LIMIT_S = 5.0
STUCK_S = 30.0
# A process that may be killed for its size is looked at as often as it could have come to its limit, growing as fast
# as a processor writes; reading its size takes 20 microseconds.
WEIGH_EVERY_S, WEIGH_AT_MOST_EVERY_S = 0.1, 0.01
GROWTH_BYTES_S = 2e9
LOOK_FOR_SUCCESSOR_S = 0.02

logger = logging.getLogger("switchyard.workers")


class ChildManager:
    """The children of a pool, in places: the pool's own, one for a replacement, and some for what runs alone.

    Args:
        grace_s: Seconds that a child's tasks may take to end.
        shed: What a child lets go of that is the supervisor's alone.
        ended: Told the pid of each child that ended.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        pool: Pool,
        yard: Yard,
        broker: Broker,
        url: str,
        *,
        grace_s: float,
        shed: Iterable[Callable[[], None]],
        ended: Callable[[int], None],
    ) -> None:
        self.pool = pool
        self.restarts: dict[str, int] = {}
        self._grace_s = grace_s
        self._shed = (*shed, self.shed)
        self._told_end = ended
        spare = 1 + MOST_ALONE[pool.kind]
        self._table = ChildTable.create(pool.processes + spare, pool.slots)
        self._rows = dict(enumerate(self._table.rows, start=1))
        self._keeper = ProcessSet(selector, pool.processes, spare=spare, start=self._start, ended=self._ended)
        self._own = self._keeper.members[: pool.processes + 1]
        self._alone = self._keeper.members[pool.processes + 1 :]
        self._leases = ChildLeases(pool, yard, broker, url, alone=self._want_alone)
        self._stops = CancellationWatch(self._leases.asked_to_stop)
        self._estates: list[tuple[Leftovers, tuple[Running, ...], str]] = []
        self._endings: dict[int, ExitCause] = {}
        self._resting = False
        self._successor: tuple[Process, Process] | None = None
        self._weigh_at_s = 0.0
        self._pulses = Heartbeats()
        self._took = (-1, time.monotonic())

    @property
    def pids(self) -> list[int]:
        """Processes that run."""
        return self._keeper.pids

    @property
    def stopping(self) -> bool:
        """Whether the children end for good."""
        return self._keeper.stopping

    @property
    def settled(self) -> bool:
        """Whether what ended children left is taken back."""
        return self._leases.settled

    @property
    def away(self) -> bool:
        """Whether the broker did not answer the last time."""
        return self._leases.away

    @property
    def silent(self) -> bool:
        """Whether the broker did not answer twice in a row."""
        return self._leases.silent

    def hurry(self) -> None:
        """Find out, with the next call of :meth:`hold_leases` and soon again, whether the broker answers."""
        self._leases.hurry()

    @property
    def ready(self) -> bool:
        """Whether every child of the pool is up."""
        return sum(self._rows[member.number].read().ready for member in self._own if member.pid) >= self.pool.processes

    def unwell(self) -> str:
        """Return why the pool cannot be said to work; empty when it does.

        A process that is up is not enough: messages are taken, or there are none. While the broker is away nobody can
        take one, and no restart would help.
        """
        if self._leases.away:
            self._took = (self._took[0], time.monotonic())
            return ""
        states = [self._rows[member.number].read() for member in self._own if member.pid]
        if not any(self._rows[member.number].working for member in self._own if member.pid):
            return "no child works"
        taken, now_s = sum(state.taken for state in states), time.monotonic()
        if taken != self._took[0] or any(state.busy for state in states) or not self._leases.waiting:
            self._took = (taken, now_s)
        idle_s = now_s - self._took[1]
        return f"messages wait, and none was taken for {idle_s:.0f} s" if idle_s > STUCK_S else ""

    def states(self) -> list[tuple[int, ChildState]]:
        """Return pid and state of each child that runs."""
        return [(member.pid, self._rows[member.number].read()) for member in self._keeper.members if member.pid]

    def work(self) -> float:
        """Start and collect, settle what ended, hold leases, mind limits; return seconds until something is due."""
        self._keeper.work()
        estates, self._estates = self._estates, []
        for estate, guilty, cause in estates:
            self._leases.settle(estate, guilty, cause)
        self._mind_pulse()
        next_s = min(self._mind_stops(), self._mind_limits(), self._mind_age())
        return min(next_s, self._leases.seconds_to_next(), self._keeper.seconds_to_next())

    def hold_leases(self) -> list[int]:
        """Do what is due for leases; return the places of children that lost theirs."""
        return self._leases.tick(self._rows) if self._leases.seconds_to_next() <= 0 else []

    def kill(self, place: int, why: str, told: str) -> None:
        """Kill a child that must not go on, for no fault of what it runs."""
        logger.error("pool %s: child %d %s; killed", self.pool.name, place, told)
        self._kill(self._keeper.members[place - 1], ExitCause(why))

    def dump_stacks(self) -> None:
        """Have every child write where its threads stand."""
        for member in self._keeper.members:
            if member.pid:
                logger.info(
                    "pool %s: child %d: %s", self.pool.name, member.number, stacks_file(self.pool.name, member.pid)
                )
                send(member, signal.SIGUSR1)

    def stop(self, signum: int) -> None:
        """Signal all children, and start none again."""
        for member in self._keeper.members:
            self._endings.setdefault(member.number, ExitCause("stop")).killed |= signum == signal.SIGKILL
        self._keeper.stop(signum)

    def rest(self) -> None:
        """Have all children end when their tasks have, until :meth:`resume`."""
        self._resting = True
        self._successor = None  # it ends as well, and would be waited for for ever
        for member in self._keeper.members:
            self._keeper.end(member)

    def resume(self) -> None:
        """Start children again after :meth:`rest`."""
        self._resting = False
        self._took = (-1, time.monotonic())
        for member in self._own[: self.pool.processes]:
            self._keeper.fill(member)

    def close(self) -> None:
        """Give up the leases once all children have ended."""
        self._leases.close()

    def shed(self) -> None:
        """Let go, in a child, of what is the supervisor's."""
        self._keeper.shed()
        self._leases.shed()

    # --- Starting ---

    def _start(self, place: int) -> int:
        row = self._rows[place]
        row.clear()
        self._pulses.forget(place)
        self._endings.pop(place, None)
        alone = self._keeper.members[place - 1] in self._alone
        served = self._leases.alone if alone else self._leases.served
        assignment = Assignment(
            pool=self.pool,
            title=f"{self.pool.name} {'alone' if alone else 'child'} {place - len(self._own) if alone else place}",
            child=self._leases.adopt(place, row, served),
            place=place,
            lanes=served.names,
            slots=1 if alone else self.pool.slots,
            grace_s=self._grace_s,
            alone=alone,
        )
        return start_child(assignment, self._table, shed=self._shed)

    def _want_alone(self, count: int) -> None:
        """Have as many children for what runs alone as there are such messages, up to the most."""
        if self._keeper.stopping or self._resting:
            return
        missing = min(count, len(self._alone)) - sum(member.wanted for member in self._alone)
        for member in [member for member in self._alone if not member.wanted][: max(missing, 0)]:
            self._keeper.fill(member)

    def _replace(self, member: Process) -> None:
        """Tell a child to end, and start another one beside it, if there is room for one more."""
        spare = next((other for other in self._own if not other.pid and not other.wanted), None)
        if spare is None or member in self._alone:
            send(member, signal.SIGTERM)  # followed in its own place
            return
        self._keeper.end(member)
        self._keeper.fill(spare)

    def _mind_age(self) -> float:
        """Replace a child that did enough or holds too much, its successor first; kill one over the memory limit.

        Return seconds until it is time to look again.
        """
        pool = self.pool
        if self._keeper.stopping or self._resting:
            return math.inf
        weighed: dict[int, int] = {}
        if (pool.recycle_above_bytes or pool.memory_limit_bytes) and time.monotonic() >= self._weigh_at_s:
            weighed = {member.number: resident_bytes(member.pid) for member in self._keeper.members if member.pid}
            self._end_gluttons(weighed)
            soon_s = ((pool.memory_limit_bytes or math.inf) - max(weighed.values(), default=0)) / GROWTH_BYTES_S
            self._weigh_at_s = time.monotonic() + max(min(soon_s, WEIGH_EVERY_S), WEIGH_AT_MOST_EVERY_S)
        if self._successor is None:
            self._choose_successor(weighed)
        elif self._rows[self._successor[1].number].working:
            old, _ = self._successor
            self._successor = None
            self._retire(old)
            self._keeper.end(old)
        if self._successor is not None:
            return LOOK_FOR_SUCCESSOR_S
        return max(self._weigh_at_s - time.monotonic(), 0.0) if self._weigh_at_s else math.inf

    def _mind_pulse(self) -> None:
        """Kill children that hang though they run nothing; one that runs something has until its hard limit."""
        rows = {member.number: self._rows[member.number] for member in self._keeper.members if member.pid}
        for place, silent_s in self._pulses.silent(rows):
            if place not in self._endings:
                self.kill(place, "hung", f"gave no sign of life for {silent_s:.0f} s")

    def _end_gluttons(self, weighed: Mapping[int, int]) -> None:
        limit = self.pool.memory_limit_bytes
        for place, size in weighed.items():
            ending = self._endings.get(place)
            if limit and size > limit and not (ending and ending.killed):
                told = f"takes {size / 1e6:.0f} MB, over its {limit / 1e6:.0f} MB"
                logger.error("pool %s: child %d %s; killed", self.pool.name, place, told)
                crash = f"killed for memory: its worker {told}"
                self._kill(self._keeper.members[place - 1], ExitCause("memory", crash=crash))

    def _choose_successor(self, weighed: Mapping[int, int]) -> None:
        after, above = self.pool.recycle_after, self.pool.recycle_above_bytes
        spare = next((other for other in self._own if not other.pid and not other.wanted), None)
        for member in self._own:
            row = self._rows[member.number]
            if not member.pid or not member.wanted or member.number in self._endings:
                continue
            state = row.read()
            if spare is None:  # one after the other, but for those that do nothing any more
                if row.full and not state.busy:
                    self._retire(member)
                    send(member, signal.SIGTERM)
                continue
            if row.full or (after and state.done >= after) or (above and weighed.get(member.number, 0) > above):
                self._successor = (member, spare)
                self._keeper.fill(spare)
                return

    def _retire(self, member: Process) -> None:
        if member.pid:
            self._rows[member.number].retire()
            self._endings.setdefault(member.number, ExitCause("recycled"))

    # --- ExitCause ---

    def _mind_stops(self) -> float:
        """Look who was asked to stop, and interrupt the greenlets among them; return seconds until the next look."""
        if self._leases.away:
            return math.inf  # nobody can be asked, and each question would hold up the children
        rows = {member.number: self._rows[member.number] for member in self._keeper.members if member.pid}
        running = {place: [ran for ran in row.running() if ran.limit_ns] for place, row in rows.items()}
        next_s = self._stops.mind(running)
        if self.pool.kind == "gevent":
            for place, ran in self._stops.to_interrupt():
                rows[place].ask(ran)
                send(self._keeper.members[place - 1], INTERRUPT)
            next_s = min(next_s, LOOK_EVERY_S)
        return next_s

    def _mind_limits(self) -> float:
        """End children whose tasks are over their hard limits, or do not stop though they were asked to.

        Return seconds until the next one may be.
        """
        now_ns = time.monotonic_ns()
        next_ns = now_ns + 1_000_000_000
        for member in self._keeper.members:
            if not member.pid:
                continue
            place = member.number
            running = [
                (at_ns, ran)
                for ran in self._rows[place].running()
                if ran.limit_ns and (at_ns := self._stops.over_at_ns(place, ran))
            ]
            over = tuple(ran for at_ns, ran in running if at_ns <= now_ns)
            why = "cancelled" if all(self._stops.is_asked(place, ran) for ran in over) else "hard_limit"
            ending = self._endings.get(place)
            if over and ending is None:
                told = "asked to stop" if why == "cancelled" else "over their hard limit"
                logger.error(
                    "pool %s: child %d: %d tasks are %s, one may take %g s; it has %g s to end",
                    self.pool.name, place, len(over), told, over[0].limit_ns / 1e9, KILL_AFTER_LIMIT_S,
                )  # fmt: skip
                self._endings[place] = ExitCause(why, over)
                self._replace(member)
            kill_at_ns = [at_ns + int(KILL_AFTER_LIMIT_S * 1e9) for at_ns, _ in running]
            if any(at_ns <= now_ns for at_ns in kill_at_ns) and not (ending and ending.killed):
                self._kill(member, ExitCause(why, over))
            next_ns = min([next_ns, *(at for at in (*kill_at_ns, *(at for at, _ in running)) if at > now_ns)])
        return (next_ns - now_ns) / 1e9

    def _kill(self, member: Process, ending: ExitCause) -> None:
        ending.killed = True
        self._endings[member.number] = ending
        send(member, signal.SIGKILL)

    def _ended(self, place: int, pid: int, status: int) -> bool:
        row = self._rows[place]
        state = row.read()
        estate = self._without_cancelled(place, self._leases.ended(place, row))
        ending = self._endings.pop(place, None)
        logged = row.logged()
        row.clear()
        self._told_end(pid)
        reason, told = describe_exit(status)
        clean = os.WIFEXITED(status) and os.WEXITSTATUS(status) in CLEAN_EXITS
        at = last_words(stacks_file(self.pool.name, pid))
        if at:
            told += f" in {at}"
        member = self._keeper.members[place - 1]
        alone = member in self._alone
        guilty, cause = blame(estate, ending, clean=clean, told=told)
        if cause and not cause.startswith("limit"):
            cause += f", pid {pid}, at most {member.peak_bytes / 1e6:.0f} MB"
            if alone or self.pool.slots == 1:
                cause = "\n".join([cause, *shown(logged)])
        self._estates.append((estate, guilty, cause))
        if alone:
            member.wanted = bool(guilty) and not self._resting  # what it ran waits to be run alone again
        if ending is not None and ending.why == "recycled" and clean:
            self.restarts["recycled"] = self.restarts.get("recycled", 0) + 1
            logger.info("pool %s: child %d (pid %d) is replaced after %d tasks", self.pool.name, place, pid, state.done)
            return True
        if (clean and not member.wanted) or self._keeper.stopping or self._resting:
            if not clean:
                logger.warning("pool %s: child %d (pid %d) %s", self.pool.name, place, pid, told)
            return True
        if ending is not None and ending.why != "recycled":  # one that was to be replaced, and crashed before it ended
            reason = ending.why
        self.restarts[reason] = self.restarts.get(reason, 0) + 1
        logger.error("pool %s: child %d (pid %d) %s; it is replaced", self.pool.name, place, pid, told)
        return alone or state.done > 0 or bool(guilty or estate.cancelled)

    def _without_cancelled(self, place: int, estate: Leftovers) -> Leftovers:
        """Take what was asked to stop from what ran: it never runs again, so that it is not blamed."""
        cancelled = [ran for ran in estate.running if ran.limit_ns and self._stops.is_asked(place, ran)]
        return replace(estate, running=[ran for ran in estate.running if ran not in cancelled], cancelled=cancelled)
