"""The broker's Lua operations as the model test runs them: with a clock of its own, and each with one thing wrong."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any
from unittest import mock

from switchyard.broker.queue.operations import Fetched, Lease, QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.scripts import INCLUDE, LUA, Script

# No operation declares this key; it is in the hash slot of the family, where a cluster does not mind.
CLOCK_KEY = "{q}:model-clock"
CLOCK = f"""local function now_ms()
  return tonumber(redis.call("GET", "{CLOCK_KEY}"))
end
"""
CALLERS = ("queue.operations", "queue.administration", "stores.dead_lists", "queue.unroutable", "queue.limits")


class ChangeDoesNotApply(LookupError):
    """A change whose text is not in its script, or more than once: the script has changed since."""


@dataclass(frozen=True)
class Change:
    """One piece of a script that is replaced.

    Args:
        file: ``queue/ack`` or ``include/finish``.
    """

    file: str
    old: str
    new: str

    def apply(self, text: str) -> str:
        """Return the file's text with the change.

        Raises:
            ChangeDoesNotApply: ``old`` is not there exactly once.
        """
        if text.count(self.old) != 1:
            raise ChangeDoesNotApply(
                f"switchyard/broker/lua/{self.file}.lua has {text.count(self.old)} times {self.old!r}"
            )
        return text.replace(self.old, self.new)


class Scripts:
    """Stands in for :func:`switchyard.broker.redis.scripts.script`, with the test's clock and with changes."""

    def __init__(self, changes: Sequence[Change] = ()) -> None:
        self._changes = changes
        self._known: dict[str, Script] = {}
        for change in changes:
            change.apply((LUA / f"{change.file}.lua").read_text())

    def __call__(self, name: str) -> Script:
        if name not in self._known:
            self._known[name] = script_of(name, INCLUDE.sub(lambda match: self._include(match[1]), self._read(name)))
        return self._known[name]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the operations of a family call these scripts."""
        with ExitStack() as stack:
            for module in CALLERS:
                stack.enter_context(mock.patch(f"switchyard.broker.{module}.script", self))
            yield

    def _read(self, name: str, folder: str = "queue") -> str:
        text = (LUA / folder / f"{name}.lua").read_text()
        for change in self._changes:
            if change.file == f"{folder}/{name}":
                text = change.apply(text)
        return text

    def _include(self, name: str) -> str:
        return CLOCK if name == "now_ms" else self._read(name, "include")


def script_of(name: str, text: str) -> Script:
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True)
class Defect:
    """Something wrong.

    Args:
        name: What the broker does then.
        changes: In its Lua.
        family: Stands in for :class:`switchyard.broker.queue.operations.QueueOperations`, for what is wrong in Python.
        rare: Shows after hundreds of examples, a minute's search: found in a ``--long`` run alone.
    """

    name: str
    changes: Sequence[Change] = ()
    family: Callable[[RedisCalls, Any], QueueOperations] = field(default=QueueOperations)
    rare: bool = False


def lua(name: str, file: str, old: str, new: str = "", *, rare: bool = False) -> Defect:
    return Defect(name, [Change(file, old, new)], rare=rare)


class ForgetsItsRequest(QueueOperations):
    count = 0

    def fetch(self, owner: str, count: int, *, request: int, acked: Sequence[Lease] = ()) -> Fetched:
        self.count += 1
        return super().fetch(owner, count, request=request * 1000 + self.count, acked=acked)


class HidesStaleTokens(QueueOperations):
    def ack(self, owner: str, leases: Sequence[Lease], **options: Any) -> list[Lease]:
        super().ack(owner, leases, **options)
        return []


class ReclaimsAlways(QueueOperations):
    def reclaim(self, owner: str, *, only_lapsed: bool = False, **options: Any) -> Any:
        return super().reclaim(owner, only_lapsed=False, **options)


DEFECTS = (
    # The nine of the prototype, and what each operation can lose, keep or do twice.
    lua("enqueue is not idempotent", "queue/enqueue",
        "if not taken[id] and not known(id) then", "if not taken[id] then"),
    lua("an acknowledgement is not fenced", "include/acked",
        "if tokens[n] == token then", "if tokens[n] then", rare=True),
    lua("moves are not fenced", "include/held",
        'if redis.call("HGET", hold, id) ~= token then', 'if not redis.call("HGET", hold, id) then', rare=True),
    lua("ack keeps the body", "include/finish", 'redis.call("HDEL", bodies, unpack(ids)) < #ids', "false"),
    lua("reclaim leaves a copy", "queue/reclaim",
        "  answer[1] = answer[1] + 1\n", '  answer[1] = answer[1] + 1\n  redis.call("RPUSH", KEYS[4], id)\n'),
    lua("reclaim keeps the owner", "queue/reclaim", '  redis.call("ZREM", KEYS[1], owner)\n'),
    lua("promotion stops early", "queue/fetch", '"LIMIT", 0, ARGV[4]', '"LIMIT", 0, 1'),
    lua("release drops", "queue/release",
        '    redis.call(head and "LPUSH" or "RPUSH", KEYS[1 + level_of(id, KEYS[6])], id)\n'),
    lua("requeue drops", "queue/requeue", "put(going,", "put({},"),
    lua("crashes are not counted", "queue/reclaim", 'if not string.match(ARGV[5], "^limit") then', "if false then"),
    lua("a hard limit counts as a crash", "queue/reclaim", 'not string.match(ARGV[5], "^limit")', "true"),
    lua("a lapse marks nothing", "queue/reclaim",
        "tonumber(lease) > 0 then mark_suspects()", "false then mark_suspects()"),
    lua("a lapse marks the stock", "queue/reclaim", "n <= tonumber(oldest) or", "true or"),
    lua("a lapse beside others counts", "queue/reclaim", 'history.lapses and alone == "1"', "history.lapses"),
    lua("the first lapse counts", "queue/reclaim", 'history.lapses and alone == "1"', 'alone == "1"'),
    lua("a move forgets a suspect", "queue/move",
        "  history.cause =", "  history.lapses = nil\n  history.cause =", rare=True),
    lua("a repeated fetch grants anew", "queue/fetch", "if request == ARGV[3] then", "if false then"),
    lua("move keeps the hold", "queue/move", 'redis.call("HDEL", KEYS[2], id)\n'),
    lua("isolate keeps the hold", "queue/isolate", 'redis.call("HDEL", KEYS[1], id)\n'),
    lua("forget keeps the body", "queue/forget", '    redis.call("HDEL", KEYS[2], id)\n'),
    lua("forget drops a request to cancel", "queue/forget", 'ARGV[i + 2] == ""', "false"),
    lua("place drops the unique key", "queue/place", 'key ~= ""', "false"),
    lua("adopt leaves it scheduled", "queue/adopt", '    redis.call("ZREM", KEYS[2], id)\n'),
    lua("adopt leases what is not scheduled", "queue/adopt", 'redis.call("ZSCORE", KEYS[2], id)', "true"),
    lua("adopt ignores a pause", "queue/adopt", 'redis.call("EXISTS", KEYS[6]) == 1', "false"),
    lua("adopt leases to nobody", "queue/adopt", "not lease or tonumber(lease) == 0", "false"),
    lua("take leases to nobody", "queue/take", 'if not lease or tonumber(lease) == 0 then return "gone" end\n'),
    lua("finished ids are not remembered", "include/finish", '  redis.call("HSET", done, unpack(pairs_))\n'),
    Defect(
        "messages start early",
        [
            Change("queue/fetch", "math.max(tonumber(head[2]) - now, 0)", "math.max(tonumber(head[2]) - now - 900, 0)"),
            Change("queue/fetch", '"-inf", now,', '"-inf", now + 900,'),
        ],
    ),
    lua("a gap without sweeps lapses every lease", "queue/lapsed", "now - before > tonumber(ARGV[2])", "false"),
    lua("a cleared lease is renewed", "queue/renew", "if lease and tonumber(lease) > 0 then", "if true then"),
    lua("tokens repeat", "queue/fetch", 'redis.call("INCRBY", KEYS[9], #ids)', "#ids"),
    lua("release wakes nobody", "queue/release", "    notify(KEYS[5])\n"),
    lua("release turns the order round", "queue/release", "if head then first, last, step = #ARGV - 1, 2, -2 end\n"),
    lua("a unique key is never free again", "include/finish",
        'if key and redis.call("HGET", unique, key) == id then', "if false then"),
    lua("a cancelled message starts", "queue/fetch",
        'if noted and redis.call("HEXISTS"', 'if false and redis.call("HEXISTS"'),
    lua("a body that changed is overwritten", "queue/due_now", "body ~= ARGV[2]", "false", rare=True),
    lua("an amended body overwrites one that changed", "queue/amend",
        "body ~= ARGV[2] then return -2", "false then return -2", rare=True),
    lua("a message is amended that has started", "queue/amend", 'redis.call("HEXISTS", KEYS[i], id) == 1', "false"),
    lua("discard leaves the id in the dead list", "queue/discard", "unlist(gone, KEYS[2], place)", "0"),
    lua("a pause is not minded", "queue/fetch",
        'if rare and redis.call("EXISTS", KEYS[10])', 'if false and redis.call("EXISTS", KEYS[10])'),
    lua("enqueue fills a full server", "queue/enqueue", "#!lua\n", "#!lua flags=allow-oom\n"),
    lua("a burial forgets nothing of crashes", "queue/dead_letter", '"crash:" .. id, '),
    # These the machine found, or its writing did.
    lua("a discard repeated is answered anew", "include/held",
        'string.sub(word, 1, #spent + 1) == spent .. " "', "false"),
    lua("a keeper without a lease keeps", "queue/reclaim",
        'if keeper ~= "" and tonumber(redis.call("ZSCORE", KEYS[1], keeper) or 0) == 0 then keeper = "" end\n'),
    lua("a repeated fetch hides what is due", "queue/fetch", "    say_next_due()\n    say_left()\n", rare=True),
    lua("nobody learns when the next one is due", "queue/reclaim", "notify(KEYS[7]) --", "--"),
    # In Python.
    Defect("a fetch is repeated under a new number", family=ForgetsItsRequest),
    Defect("stale tokens are hidden", family=HidesStaleTokens),
    Defect("leases that did not lapse are taken", family=ReclaimsAlways),
)  # fmt: skip
