"""Reports of the pools' supervisors, for pages, metrics and commands. A report expires with its supervisor."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal, NamedTuple, TypedDict

import msgspec

from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.own_keys import encode, number, read, utf8
from switchyard.broker.shapes import Whole

REPORT_TTL_MS = 15_000
# Reasons for which children are replaced on purpose: recycling, or a running job that was cancelled.
ON_PURPOSE = ("recycled", "recycled_memory", "cancelled")
ANSWER_TTL_MS = 60_000
# Supervisors that were killed are remembered so long.
SILENT_KEPT_MS = 3_600_000
# A supervisor that has not read an instruction by then never obeys it.
INSTRUCTION_TTL_MS = 60_000
# Form of a request for stacks. Others were written by hand and are ignored.
REQUEST = re.compile(rb"[\w-]{1,64}")
CALL = re.compile(r"dramatiq/worker\.py:\d+ process_message$")

Verb = Literal["quiet", "resume", "stop"]
VERBS: Final[tuple[Verb, ...]] = ("quiet", "resume", "stop")
QUIETED = "quieted"


class Instruction(msgspec.Struct, frozen=True):
    """An operator's instruction to one supervisor.

    Args:
        id: A supervisor obeys the same one once, however often it reads it.
        verb: ``quiet``: fetch and start nothing, what runs ends; ``resume``: fetch again; ``stop``: drain and end.
        started_at: Start of the supervisor that is meant, ms: a successor with its name and pid does not obey.
        at: Time at which it was given, ms since the epoch.
    """

    id: str
    verb: str
    started_at: Whole
    at: Whole
    by: str = ""
    reason: str = ""


class ReportedChild(TypedDict, total=False):
    """A child in a report: ``ready``: it takes work; ``quiet``: it fetches and starts nothing."""

    pid: Whole
    ready: bool
    busy: Whole
    done: Whole
    rss_bytes: Whole
    quiet: bool


class Stack(msgspec.Struct, frozen=True):
    """Stack of a thread or greenlet: frames as ``file:line function``, innermost first."""

    of: str
    frames: list[str] = []

    @property
    def runs_task(self) -> bool:
        """Whether it runs a task: it holds the function that Dramatiq calls for each message."""
        return any(map(CALL.match, self.frames))


class SilentChild(msgspec.Struct, frozen=True):
    """A child that is up and has given no heartbeat for 4 s or more.

    Args:
        number: Its number among the children of its supervisor.
        silent_ms: Time since its last heartbeat.
        runs: Id of each message that it runs -> its start, ms since the epoch.
        stacks: Those that run a task, of the time when the silence was noticed.
    """

    pid: Whole
    number: Whole
    silent_ms: Whole
    runs: dict[str, Whole] = {}
    stacks: list[Stack] = []


class Notices(NamedTuple):
    """Requests that a supervisor finds with its report: one for stacks, or "", and an instruction."""

    stacks: str
    instruction: Instruction | None


class PoolReport(msgspec.Struct, frozen=True):
    """One supervisor's state.

    Args:
        slots: Messages its children can run at once; ``busy``: run now.
        restarts: Reason -> children restarted since the supervisor started.
        crashes: Reason -> children that crashed within the last hour; ``crashed``: when the last three did, in ms since
            the epoch, none where fewer did.
        started_at, beat_at: Milliseconds since the epoch.
        state: ``starting``, ``up``, ``quieted`` by an operator, ``draining``, or ``paused`` while the broker's keyspace
            is not the one it knew.
        settings: Digest of what must be alike on all hosts, see :func:`switchyard.conf.settings_digest`.
        clock_ahead_ms: How far its host's own clock is ahead of the server's; ``None`` before it was compared.
        silent: Children that answer nothing.
        done: Messages that ended since the supervisor started; ``busy_ms``: time that slots were busy since then.
    """

    pool: str
    host: str
    pid: Whole
    kind: str
    slots: Whole
    busy: Whole
    started_at: Whole
    beat_at: Whole
    state: str
    children: list[ReportedChild] = []
    restarts: dict[str, Whole] = {}
    metrics_port: Whole = 0
    release: str = ""
    settings: str = ""
    clock_ahead_ms: Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)] | None = None
    crashes: dict[str, Whole] = {}
    crashed: list[Whole] = []
    silent: list[SilentChild] = []
    done: Whole = 0
    busy_ms: Whole = 0

    @property
    def member(self) -> str:
        """The supervisor's name: no other one has it at the same time."""
        return f"{self.pool}:{self.host}:{self.pid}"


class SilentSupervisor(msgspec.Struct, frozen=True):
    """A supervisor that reported last at ``beat_at`` (ms since the epoch), and did not end in order."""

    pool: str
    host: str
    pid: int
    beat_at: int

    @property
    def member(self) -> str:
        return f"{self.pool}:{self.host}:{self.pid}"


class ChildStacks(msgspec.Struct, frozen=True):
    pid: Whole
    stacks: list[Stack]


# A newer release may report more, while the hosts are updated one by one: other fields are ignored.
REPORT: Final = msgspec.json.Decoder(PoolReport)
INSTRUCTION: Final = msgspec.json.Decoder(Instruction)
STACKS: Final = msgspec.json.Decoder(list[ChildStacks])


class PoolReports:
    """Write and read reports, instruct a supervisor, ask it for its children's stacks, and answer."""

    def __init__(self, calls: RedisCalls, keys: Keys) -> None:
        self._calls = calls
        self._keys = keys

    def write(self, report: PoolReport, quieted: Instruction | None = None) -> Notices:
        """Write a report, which expires after 15 s; return the last requests to its supervisor.

        A request is returned again for as long as it lasts, so that it survives an answer that was lost. ``quieted`` is
        the instruction by which the supervisor is quieted.
        """
        member = report.member
        note = (
            [] if quieted is None else [("SET", self._keys.pool_quieted(member), encode(quieted), "PX", REPORT_TTL_MS)]
        )
        *_, request, instruction = self._calls.pipeline(
            [
                *note,
                ("SET", self._keys.pool_report(member), encode(report), "PX", REPORT_TTL_MS),
                ("SADD", self._keys.pool_reports(), member),
                ("HSET", self._keys.pool_beats(), member, report.beat_at),
                ("GET", self._keys.stacks_asked(member)),
                ("GET", self._keys.pool_instruction(member)),
            ]
        )
        stacks = str(request, "ascii") if request and REQUEST.fullmatch(request) else ""
        key = self._keys.pool_instruction(member)
        return Notices(stacks, None if instruction is None else read(INSTRUCTION, instruction, key))

    def instruct(self, member: str, instruction: Instruction) -> None:
        """Give a supervisor an instruction, in place of one that it has not read; it looks with its next report."""
        key, data = self._keys.pool_instruction(member), encode(instruction)
        self._calls.command("SET", key, data, "PX", INSTRUCTION_TTL_MS)

    def read_quieted(self, reports: Sequence[PoolReport]) -> dict[str, Instruction]:
        """Return, by member, the instructions by which supervisors are quieted, as far as they are known."""
        members = [report.member for report in reports if report.state == QUIETED]
        return self._instructions(members, self._keys.pool_quieted)

    def read_instructions(self, reports: Sequence[PoolReport]) -> dict[str, Instruction]:
        """Return, by member, the last instructions to supervisors, obeyed or not."""
        return self._instructions([report.member for report in reports], self._keys.pool_instruction)

    def _instructions(self, members: Sequence[str], key_of: Callable[[str], str]) -> dict[str, Instruction]:
        if not members:
            return {}
        keys = [key_of(member) for member in members]
        found = zip(members, keys, self._calls.command("MGET", *keys), strict=True)
        known = {member: read(INSTRUCTION, data, key) for member, key, data in found if data}
        return {member: instruction for member, instruction in known.items() if instruction is not None}

    def ask_for_stacks(self, member: str, request: str) -> None:
        """Ask a supervisor for its children's stacks; it looks with its next report.

        The name of the request is hard to guess: at most 64 letters, digits, ``-`` and ``_``.
        """
        self._calls.command("SET", self._keys.stacks_asked(member), request, "PX", REPORT_TTL_MS)

    def answer_stacks(self, request: str, children: Sequence[ChildStacks]) -> None:
        """Store the answer to a request, for a minute."""
        data = encode(children)
        self._calls.command("SET", self._keys.stacks_answer(request), data, "PX", ANSWER_TTL_MS)

    def read_stacks(self, request: str) -> list[ChildStacks] | None:
        """Return the answer to a request, or ``None`` while there is none that can be read."""
        key = self._keys.stacks_answer(request)
        [data] = self._calls.look([("GET", key)])
        return None if data is None else read(STACKS, data, key)

    def remove(self, report: PoolReport) -> None:
        """Remove a report when its supervisor ends."""
        member = report.member
        self._calls.pipeline(
            [
                ("DEL", self._keys.pool_report(member)),
                ("DEL", self._keys.pool_quieted(member)),
                ("SREM", self._keys.pool_reports(), member),
                ("HDEL", self._keys.pool_beats(), member),
            ]
        )

    def read_all(self) -> list[PoolReport]:
        """Return the reports of all live supervisors, by pool and host; remove the expired ones from the index."""
        index = self._keys.pool_reports()
        [found] = self._calls.look([("SMEMBERS", index)])
        members = sorted(found)
        if not members:
            return []
        keys = [self._keys.pool_report(utf8(member)) for member in members]
        found = self._calls.command("MGET", *keys)
        lapsed = [member for member, report in zip(members, found, strict=True) if report is None]
        if lapsed:
            self._calls.command("SREM", index, *lapsed)
        reports = [read(REPORT, report, key) for key, report in zip(keys, found, strict=True) if report is not None]
        return [report for report in reports if report is not None]

    def read_beats(self, now: int) -> list[SilentSupervisor]:
        """Return the supervisors that reported within the last hour, by pool and host, and forget older ones.

        One that starts does so as well: each adds a beat, in a yard that nobody looks at as well.
        """
        key = self._keys.pool_beats()
        [beats] = self._calls.look([("HGETALL", key)])
        found, forgotten = [], []
        for name, beat in zip(beats[::2], beats[1::2], strict=True):
            pool, _, rest = utf8(name).partition(":")
            host, _, pid = rest.rpartition(":")
            beat_at, number_of = number(beat, key), number(pid.encode(), key)
            if not number_of or beat_at < now - SILENT_KEPT_MS:
                forgotten.append(name)
            else:
                found.append(SilentSupervisor(pool, host, number_of, beat_at))
        if forgotten:
            self._calls.command("HDEL", key, *forgotten)
        return sorted(found, key=lambda one: (one.pool, one.host, one.pid))
