"""The servers that hold a yard's keys: facts and findings of each, what is away, and the marker of the keyspace.

Mostly that is one server, which answers or is away as a whole. An add-on that spreads keys over several places brings a
subclass of :class:`Servers`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis

from switchyard.broker.errors import ADDRESSES
from switchyard.broker.health.server import KeyspaceId, ServerFacts, ServerFinding, judge, read_facts
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.own_keys import texts_of
from switchyard.broker.redis.sentinel import ALL_S, ONE_S, Sentinels, SentinelUrl

# Of the master's writes that a replica has not got yet, and of its silence: it reports once a second.
BEHIND_BYTES: Final = 1_000_000
SILENT_S: Final = 10
ASK_EACH: Final = "Ask each for SENTINEL CKQUORUM and SENTINEL SENTINELS; start those that are down."
# The doctor replaces it by the name of the variable in use.
ADDRESS: Final = ADDRESSES.removesuffix(",")
START_IT: Final = f"Start it, or correct {ADDRESS}."
LOGIN: Final = f"Correct sentinel_username and sentinel_password in {ADDRESS}."
ITS_NAME: Final = f"Correct the name in the sentinel's configuration, or in {ADDRESS}."
RIGHTS: Final = (
    "Let its user send SENTINEL MASTER, GET-MASTER-ADDR-BY-NAME and CKQUORUM; without users, give it a password."
)
SPEAK_TLS: Final = f"Where it takes TLS alone, write rediss+sentinel at the beginning of {ADDRESS}."
TLS_LEFT_OUT: Final = f"Where it takes TLS alone, leave out sentinel_ssl=no in {ADDRESS}."
READ_ITS_LOG: Final = "Read its log: it may want a certificate of the client."
MISSING_REPLICA: Final = (
    "Start the missing one; its log says why it does not connect. "
    "SENTINEL RESET, at one sentinel after the other, forgets one that is gone for good."
)
# Words of the client about a connection that was made, and then ended by the server.
ENDED: Final = ("reset by peer", "closed by server")
QUESTIONS: Final = ("MASTER", "GET-MASTER-ADDR-BY-NAME", "CKQUORUM")


@dataclass(frozen=True, slots=True)
class SentinelState:
    """One sentinel of the address.

    Args:
        master: Host and port of the server that it names; "" without an answer.
        failure: Reason why it names none; "" when it does.
        step: What to do about that, where it was reached; "" where it was not.
        known: Sentinels of this master that it knows, itself among them.
        needed: Sentinels that it must reach to start a failover: the quorum, and more than half of those known.
        usable: Sentinels that it reaches; ``None`` where its user may not ask.
        replicas: Replicas of the master that it knows, running or not.
    """

    address: str
    master: str = ""
    failure: str = ""
    step: str = ""
    known: int = 0
    needed: int = 0
    usable: int | None = None
    replicas: int = 0


def read_sentinels(sentinels: Sentinels) -> list[SentinelState]:
    """Ask every sentinel of an address, within a second in all."""
    each_s = min(ONE_S, ALL_S / len(sentinels.url.sentinels))
    return [_read(sentinels, place, each_s) for place in sentinels.url.sentinels]


def judge_sentinels(states: Sequence[SentinelState]) -> Iterator[ServerFinding]:
    """Yield what is wrong with the sentinels: those without an answer, of another opinion, or without a quorum."""
    answered = [state for state in states if state.master]
    mute = [state for state in states if not state.master]
    for code, some in (
        ("sentinel_away", [state for state in mute if not state.step]),
        ("sentinel_refuses", [state for state in mute if state.step]),
    ):
        if some:
            why = "; ".join(f"{state.address} {state.failure}" for state in some)
            steps = " ".join(dict.fromkeys(state.step for state in some if state.step)) or START_IT
            seen = f"{len(some)} of {len(states)} sentinels name no master: {why}"
            yield ServerFinding(code, "warning", seen, steps)
    if len({state.master for state in answered}) > 1:
        names = "; ".join(f"{state.address} names {state.master}" for state in answered)
        seen = f"the sentinels name different masters: {names}"
        yield ServerFinding("sentinels_split", "warning", seen, ASK_EACH)
    short = [state for state in answered if state.usable is not None and state.usable < state.needed]
    if short:
        worst = min(short, key=lambda state: state.usable or 0)
        seen = (
            f"{len(short)} of {len(answered)} sentinels cannot start a failover: {worst.address} reaches "
            f"{worst.usable} of {worst.known}, {worst.needed} have to agree"
        )
        yield ServerFinding("no_quorum", "warning", seen, ASK_EACH)


def judge_replicas(replication: Mapping[str, Any], known: int) -> list[ServerFinding]:
    """Return what is wrong with a master's replicas: its ``INFO replication``, and the number that sentinels know."""
    replicas = [value for name, value in sorted(replication.items()) if re.fullmatch(r"slave\d+", name)]
    if not replicas:
        which = f"none of {known} replicas that the sentinels know is" if known else "no replica is"
        seen = f"{which} connected to the master: nothing takes over when it fails"
        return [ServerFinding("no_replica", "warning", seen, "Start a replica; its log says why it does not connect.")]
    offset = int(replication.get("master_repl_offset", 0))
    behind = [text for replica in replicas if (text := _behind(replica, offset))]
    parts = [f"replicas are behind the master: {'; '.join(behind)}"] if behind else []
    steps = ["Read the replica's log; a failover now loses these writes."] if behind else []
    if missing := max(known - len(replicas), 0):
        there = ", ".join(f"{replica['ip']}:{replica['port']}" for replica in replicas)
        verb = "is" if missing == 1 else "are"
        parts.append(f"{missing} of {known} replicas that the sentinels know {verb} not connected; connected: {there}")
        steps.append(MISSING_REPLICA)
    if not parts:
        return []
    return [ServerFinding("replica_behind", "warning", "; ".join(parts), " ".join(steps))]


def most_known(states: Iterable[SentinelState]) -> int:
    return max((state.replicas for state in states), default=0)


def told(states: Sequence[SentinelState], replication: Mapping[str, Any] | None) -> str:
    """Return which server is the master, who says so, and how many replicas follow it; "" when no sentinel answers."""
    answered = [state for state in states if state.master]
    if not answered:
        return ""
    first = answered[0]
    agree = sum(state.master == first.master for state in answered)
    followed = ""
    if replication is not None:
        count = int(replication.get("connected_slaves", 0))
        followed = f"; {count} replica{' follows' if count == 1 else 's follow'} it"
    return (
        f"{agree} of {len(states)} sentinels name {first.master} as the master; "
        f"{first.needed} of {first.known} have to agree on another{followed}"
    )


def _read(sentinels: Sentinels, place: tuple[str, int], within_s: float) -> SentinelState:
    address = f"{place[0]}:{place[1]}"
    try:
        words, named, quorum = sentinels.ask(place, QUESTIONS, within_s)
    except redis.TimeoutError:
        return SentinelState(address, failure="does not answer")
    except redis.AuthenticationError:
        return SentinelState(address, failure="refuses sentinel_username or sentinel_password", step=LOGIN)
    except redis.ConnectionError as error:
        failure, step = _absence(error, sentinels.url)
        return SentinelState(address, failure=failure, step=step)
    if isinstance(words, redis.ResponseError) or named is None or isinstance(named, redis.ResponseError):
        failure, step = _refusal(words, named, sentinels.url.master)
        return SentinelState(address, failure=failure, step=step)
    state = texts_of(words)
    known = int(state["num-other-sentinels"]) + 1
    return SentinelState(
        address,
        master=f"{str(named[0], 'utf-8')}:{int(named[1])}",
        known=known,
        needed=max(int(state["quorum"]), known // 2 + 1),
        usable=_usable(quorum),
        replicas=int(state["num-slaves"]),
    )


def _absence(error: redis.ConnectionError, url: SentinelUrl) -> tuple[str, str]:
    if any(words in str(error) for words in ENDED):
        if url.sentinel_secure:
            return "ends the connection without an answer", READ_ITS_LOG
        step = TLS_LEFT_OUT if url.secure else SPEAK_TLS
        return "ends the connection without an answer, perhaps because it takes TLS alone", step
    return "is away", ""


def _refusal(words: Any, named: Any, master: str) -> tuple[str, str]:
    if "No such master" in str(words) or named is None:
        return f"knows no master {master!r}", ITS_NAME
    login = any(code in str(words) for code in ("NOAUTH", "WRONGPASS"))
    return "refuses the question for the master", LOGIN if login else RIGHTS


def _usable(answer: bytes | redis.ResponseError) -> int | None:
    text = str(answer) if isinstance(answer, redis.ResponseError) else str(answer, "utf-8", "replace")
    found = re.search(r"(\d+) usable", text)
    return int(found[1]) if found else None


def _behind(replica: Mapping[str, Any], offset: int) -> str:
    address = f"{replica['ip']}:{replica['port']}"
    if replica["state"] != "online":
        return f"{address} is being copied to ({replica['state']})"
    if int(replica["lag"]) > SILENT_S:
        return f"{address} has been silent for {replica['lag']} s"
    missing = offset - int(replica["offset"])
    return f"{address} lacks {missing:,} bytes of writes" if missing > BEHIND_BYTES else ""


@dataclass(frozen=True, slots=True)
class AwayPart:
    """Part of a yard that does not answer or starts nothing; empty where the whole yard answers.

    Args:
        places: Their servers do not answer.
        queues: Queues that they hold.
        keys: Further keys that were asked for and cannot be used.
        blocked: Queues that start nothing, though their server answers; with their state (``blocked_word``), the fact
            behind it (``blocked_why``), and findings about them.
    """

    places: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    blocked_word: str = ""
    blocked_why: str = ""
    findings: tuple[ServerFinding, ...] = ()

    @property
    def starts_nothing(self) -> frozenset[str]:
        """Queues that are away or blocked."""
        return self.blocked.union(self.queues)


NOTHING_AWAY: Final = AwayPart()


@dataclass(frozen=True, slots=True)
class ServerLook:
    """One server, as it was found: its place ("" for the only one), its facts (``None`` when away), and findings."""

    place: str
    facts: ServerFacts | None
    findings: tuple[ServerFinding, ...]


class Servers:
    """The only server that holds a yard's keys."""

    def __init__(self, calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> None:
        self.calls, self.keys, self.queues = calls, keys, tuple(queues)

    def keyspace(self) -> KeyspaceId:
        return KeyspaceId(self.calls, self.keys, self.queues)

    def marks(self) -> list[tuple[str, str]]:
        """Return the names of every marker of the keyspace and of its missed ids."""
        return [(self.keys.generation(), self.keys.generations_missed())]

    def marker_of(self, queue: str) -> str:
        """Return the name of the marker that tells whether a queue lost its keys."""
        return self.keys.generation()

    def place_of(self, key: str) -> str:
        """Return the place of a key; "" for the only one, and while it has none."""
        return ""

    def where_lost(self, lost: Iterable[str]) -> str:
        """Return which servers lost markers, as half a sentence; "" for the only one."""
        return ""

    def probed_keys(self) -> list[str]:
        """Return the keys, beside those of the queues, that operations need and that may be away by themselves."""
        return []

    def away(self, *, also: Iterable[str] = ()) -> AwayPart:
        """Return the part of the yard, with further keys, that does not answer, while another part does.

        Raises ``BrokerUnavailable`` when no server answers.
        """
        return NOTHING_AWAY

    def probes(self) -> list[tuple[Word, ...]]:
        """Return commands that are sent with a look at the keyspace, and whose answers :meth:`judge_probes` reads."""
        return []

    def judge_probes(self, answers: Sequence[Any]) -> list[ServerFinding]:
        """Return the findings in the answers to :meth:`probes`."""
        return []

    def read(self, *, production: bool, away: AwayPart = NOTHING_AWAY) -> list[ServerLook]:
        """Read the facts of every server, and what is wrong with it; those that are known to be away are not asked.

        Raises ``BrokerUnavailable`` when no server answers.
        """
        facts = read_facts(self.calls)
        return [ServerLook("", facts, tuple(judge(facts, production=production)))]

    def findings(self, looks: Iterable[ServerLook]) -> list[ServerFinding]:
        """Return the findings of all servers, worst first, one of each code."""
        return [item for look in looks for item in look.findings]


def servers_of(calls: RedisCalls, keys: Keys, queues: Iterable[str] = ()) -> Servers:
    kind = (calls.addon and calls.addon.load("servers")) or Servers
    servers: Servers = kind(calls, keys, queues)
    return servers
