"""Stores of the broker in memory: records, dead lists, rate windows, alerts, groups, batches."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from switchyard.batches.counting import OUTCOMES, call_back
from switchyard.broker.clock import now_ms
from switchyard.broker.keys import Keys
from switchyard.broker.shapes import DeadLetter, Page, Unreadable
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroup, AlertGroups
from switchyard.broker.stores.batches import (
    STATES,
    Batches,
    BatchFacts,
    BatchRecord,
    Counted,
    Outcome,
    batch_of,
    record_of,
)
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine, decode_letter, encode_letter
from switchyard.broker.stores.history_streams import DIGITS, ENDED, Step
from switchyard.broker.stores.job_record import FamilyAnswer, Job, newest_job
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.limit_counts import GroupBarriers, GroupRun, RateWindows
from switchyard.broker.topology import lane_of_name
from switchyard.testing.broker import MemoryBroker, MemoryCalls


class MemoryDeadLists(DeadLists):
    """Dead letters by queue, oldest first, encoded as on the server."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.clear()

    def clear(self) -> None:
        self._letters: dict[str, dict[str, bytes]] = {}

    def add(self, dead_letter: DeadLetter) -> bool:
        letters = self._letters.setdefault(dead_letter.queue, {})
        is_new = dead_letter.id not in letters
        letters[dead_letter.id] = encode_letter(dead_letter).encode()
        self._broker.dead.add(dead_letter.id)
        self._broker.release_key(dead_letter.id)
        return is_new

    def remove(self, queue: str, message_id: str, *, as_read: DeadLetter | None = None) -> bool:
        letters = self._letters.get(queue, {})
        if message_id not in letters or (
            as_read is not None and letters[message_id] != encode_letter(as_read).encode()
        ):
            return False
        del letters[message_id]
        self._broker.dead.discard(message_id)
        return True

    def get(self, queue: str, message_id: str) -> DeadLetter | None:
        found = self.encoded(queue, message_id)
        return decode_letter(queue, found) if found else None

    def encoded(self, queue: str, message_id: str) -> bytes:
        return self._letters.get(queue, {}).get(message_id, b"")

    def page(self, queue: str, *, cursor: int, limit: int) -> Page[DeadLetter]:
        found = list(self._letters.get(queue, {}).values())[::-1]
        letters = [decode_letter(queue, letter) for letter in found[cursor : cursor + limit]]
        following = cursor + limit if len(found) > cursor + limit else None
        return Page([letter for letter in letters if letter is not None], following)

    def count(self, queue: str) -> int:
        return len(self._letters.get(queue, {}))


class MemoryQuarantine(Quarantine):
    """An empty quarantine: a message that cannot be read fails the test instead."""

    def __init__(self) -> None:
        pass

    def page(self, queue: str, *, cursor: int, limit: int) -> Page[Unreadable]:
        return Page([])

    def find(self, queue: str, entry_id: str) -> None:
        """Return ``None``."""

    def count(self, queue: str) -> int:
        return 0


class MemoryJobRecords(JobRecords):
    """Records of jobs, put together as the server's are."""

    def __init__(
        self, calls: MemoryCalls, broker: MemoryBroker, dead_lists: MemoryDeadLists, queues: Iterable[str]
    ) -> None:
        super().__init__(calls, Keys(), queues)
        self._broker = broker
        self._dead = dead_lists
        self.clear()

    def clear(self) -> None:
        self._live: dict[str, Step] = {}
        self._ended: dict[str, Step] = {}
        self._progress: dict[str, bytes] = {}

    def _write(self, steps: Sequence[Step]) -> list[str]:
        return [self._write_one(step) for step in steps]

    def _write_one(self, step: Step) -> str:
        known = self._live.get(step.job_id)
        if step.state in ENDED:
            self._ended[step.job_id] = step
            self._live.pop(step.job_id, None)
            return "written"
        there = step.job_id in self._broker.waiting or step.job_id in self._broker.held
        if not there or (known is not None and known.sequence > step.sequence):
            return "late"
        self._live[step.job_id] = step
        return "written"

    def _find(self, job_ids: Sequence[str], *, queues: Sequence[str] = (), partly: bool = False) -> list[Job | None]:
        return [self._record(job_id, queues or self.queues) for job_id in job_ids]

    def _record(self, job_id: str, queues: Sequence[str]) -> Job | None:
        found = [one for queue in queues if any((one := self._answer(job_id, queue))[1:])]
        return newest_job(job_id, found, finds_waiting=True)

    def _answer(self, job_id: str, queue: str) -> FamilyAnswer:
        live, ended = self._live.get(job_id), self._ended.get(job_id)
        stored, held = self._broker.waiting.get(job_id), self._broker.held.get(job_id)
        body = due = stop = b""
        if stored is not None and lane_of_name(stored.lane)[0] == queue:
            body = stored.body
            due = str(stored.ready_ms).encode() if stored.ready_ms > now_ms() else b""
        elif held is not None and lane_of_name(held.queue_name)[0] == queue:
            body, stop = held.body, b"asked" if held.cancel_requested else b""
        return FamilyAnswer(
            queue,
            b"" if live is None or live.queue != queue else f"{live.sequence:0{DIGITS}d}".encode() + live.record,
            b"" if ended is None or ended.queue != queue else ended.record,
            self._progress.get(job_id, b"") if body or (ended and ended.queue == queue) else b"",
            body,
            self._dead.encoded(queue, job_id),
            b"",
            due,
            stop,
        )

    def progress(self, job_id: str, progress: dict[str, Any], *, queue: str | None = None) -> bool:
        self._progress[job_id] = json.dumps(progress).encode()
        return self.cancel_requested(job_id)

    def cancel_requested(self, job_id: str) -> bool:
        held = self._broker.held.get(job_id)
        return held is not None and held.cancel_requested


class MemoryRateWindows(RateWindows):
    """Exact sliding windows, as ``switchyard/broker/lua/window_reserve.lua`` keeps them."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.clear()

    def clear(self) -> None:
        self._starts: dict[str, dict[str, int]] = {}

    def limit_of(self, rate: str, declared: int) -> int:
        """Return what is declared: nobody overrides it."""
        return declared

    def reserve(self, name: str, member: str, *, limit: int, window_ms: int) -> int:
        now, starts = self._broker.now_ms(), self._starts.setdefault(name, {})
        mine = starts.get(member)
        if mine is not None and mine > now:
            return mine - now
        starts.pop(member, None)
        for old in [other for other, at in starts.items() if at <= now - window_ms]:
            del starts[old]
        counted = sorted((at for at in starts.values() if mine is None or at <= now), reverse=True)
        start = max(now, counted[limit - 1] + window_ms) if len(counted) >= limit else now
        starts[member] = start
        return start - now


class MemoryAlertGroups(AlertGroups):
    """Alerts grouped by fingerprint; a group is due until it is settled."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._facts: dict[str, list[AlertFact]] = {}
        self._sent: dict[str, int] = {}

    def raise_(self, fact: AlertFact) -> int:
        facts = self._facts.setdefault(fact.fingerprint, [])
        facts.append(fact)
        return len(facts)

    def claim_due(self, limit: int = 20) -> list[AlertGroup]:
        due = [(name, facts) for name, facts in self._facts.items() if len(facts) > self._sent.get(name, 0)]
        return [
            AlertGroup(facts[0], len(facts), self._sent.get(name, 0), facts[0].at, facts[-1].at, "1")
            for name, facts in due[:limit]
        ]

    def settle(self, group: AlertGroup) -> bool:
        self._sent[group.fingerprint] = group.count
        return True

    def forget(self, fingerprint: str) -> None:
        self._facts.pop(fingerprint, None)
        self._sent.pop(fingerprint, None)


class MemoryGroupBarriers(GroupBarriers):
    """Barriers of groups: the ids of the jobs that have succeeded, until the callbacks are sent."""

    def __init__(self) -> None:
        self.run = GroupRun()
        self.clear()

    def clear(self) -> None:
        self._sizes: dict[str, int] = {}
        self._ended: dict[str, set[str]] = {}
        self._sent: set[str] = set()

    def add(self, key: str, value: int, ttl: int) -> bool:
        self.run.begin(key, value)
        is_new = key not in self._sizes
        self._sizes.setdefault(key, value)
        return is_new

    def count(self, group: str, job_id: str, *, ttl_ms: int) -> Literal["unknown", "open", "complete"]:
        if group not in self._sizes:
            return "unknown"
        ended = self._ended.setdefault(group, set())
        ended.add(job_id)
        return "complete" if len(ended) >= self._sizes[group] and group not in self._sent else "open"

    def note_sent(self, group: str, *, ttl_ms: int) -> None:
        self._sent.add(group)


@dataclass
class _Kept:
    """A batch: its facts and callbacks, each member's state and queue, and times by name."""

    facts: BatchFacts
    callbacks: dict[str, bytes]
    members: dict[str, tuple[str, str]] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)

    def count(self, state: str) -> int:
        return sum(known == state for known, _ in self.members.values())


class MemoryBatches(Batches):
    """Batches, counted when nothing is left to run: the records of their members say how they ended."""

    def __init__(self, broker: MemoryBroker, records: JobRecords) -> None:
        self._broker, self._records = broker, records
        self.clear()

    def clear(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def make(self, batch_id: str) -> None:
        """Do nothing: there is no list that a batch could be missing on."""

    def look_again(self, batch_id: str, after_ms: int) -> None:
        """Do nothing: every batch is looked at."""

    def look_on(self, batch_id: str, after_ms: int) -> None:
        """Do nothing, as above."""

    def add(
        self,
        batch_id: str,
        members: Sequence[tuple[str, str]],
        *,
        facts: BatchFacts | None = None,
        callbacks: Mapping[str, bytes] | None = None,
    ) -> list[bool] | str:
        if facts is not None and batch_id not in self._kept:
            self._kept[batch_id] = _Kept(facts, dict(callbacks or {}), at={"created": now_ms()})
        if (kept := self._kept.get(batch_id)) is None:
            return "unknown"
        if kept.at.keys() & {"succeeded", "cancelled"} and any(id_ not in kept.members for id_, _ in members):
            return "over"
        for id_, queue in members:
            kept.members.setdefault(id_, ("open", queue))
        return [kept.members[id_][0] == "open" for id_, _ in members]

    def note(self, batch_id: str, *names: str) -> None:
        for name in names:
            self._kept[batch_id].at.setdefault(name, now_ms())

    def count(self, batch_id: str, ends: Iterable[tuple[str, Outcome]] = (), *, ttl_ms: int = 0) -> Counted | None:
        if (kept := self._kept.get(batch_id)) is None:
            return None
        for id_, outcome in ends:
            if id_ in kept.members and kept.members[id_][0] != "done":
                kept.members[id_] = outcome, kept.members[id_][1]
        is_open, done, failed, cancelled = (kept.count(state) for state in STATES)
        state = "complete" if "closed" in kept.at and not is_open else "open"
        if state == "complete" and not failed + cancelled and not kept.at.keys() & {"abandoned", "cancelled"}:
            state = "succeeded"
        if state != "open":
            kept.at.setdefault("completed", now_ms())
        if state == "succeeded":
            kept.at.setdefault("succeeded", now_ms())
        wanted = {"on_failure": failed, "on_success": state == "succeeded", "on_complete": state != "open"}
        due = [name for name in wanted if wanted[name] and name in kept.callbacks and f"sent:{name}" not in kept.at]
        return Counted(state, is_open, done, failed, cancelled, tuple(due))

    def read(self, batch_ids: Sequence[str]) -> list[BatchRecord | None]:
        return [self._read(id_) for id_ in batch_ids]

    def _read(self, batch_id: str) -> BatchRecord | None:
        counted, kept = self.count(batch_id), self._kept.get(batch_id)
        if counted is None or kept is None:
            return None
        return record_of(batch_id, kept.facts, counted.state, counted[1:5], kept.at, kept.callbacks)

    def note_end(self, queue: str, message_id: str, outcome: Outcome, *, token: str = "") -> None:
        self.count(batch_of(message_id), [(message_id, outcome)])

    def settle(self) -> bool:
        sent = False
        for id_, kept in list(self._kept.items()):
            members = [member for member, (state, _) in kept.members.items() if state != "done"]
            ends = [(member, end) for member in members if (end := self._end_of(member))]
            counted = self.count(id_, ends)
            if counted is not None and counted.due:
                sent = call_back(self, id_, counted) or sent
        return sent

    def _end_of(self, member: str) -> Outcome | None:
        record = self._records.read(member)
        if record is None:
            return "done" if member in self._broker.finished else None
        return OUTCOMES.get(record.state, "failed") if record.ended else None
