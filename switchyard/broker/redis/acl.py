"""Users of the server with no more rights than their processes need, as lines of an ACL file.

Scripts run with the rights of their caller, so a role needs the commands inside its scripts: they are read from the Lua
files. Redis 7 and Valkey 8 read the same lines; one unknown command makes a server refuse a whole user.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from switchyard.addon import addons
from switchyard.broker.keys import QueueKeys
from switchyard.broker.redis.scripts import INCLUDE, LUA

CALL: Final = re.compile(r"redis\.p?call\(([^,)]*)")
FUNCTION: Final = re.compile(r"^local function (\w+).*?^end$", re.MULTILINE | re.DOTALL)
# Login, health of connections, failover, scripts, and the watch over the server. Nobody reads the server's settings:
# CONFIG GET cannot be limited to names, and answers the password of the replication.
COMMON: Final = (
    "ping", "hello", "select", "role", "client|setname", "client|id", "time", "eval",
    "evalsha", "info", "type", "exists", "get", "set", "hget", "hmget", "hgetall", "hexists", "hlen",
    "smembers", "sadd", "llen", "zcard", "zlexcount",
)  # fmt: skip
# Scripts of purges; keys of ended jobs' records, and the command that removes them.
PURGES: Final = frozenset({"queue/claim_purge", "queue/drop_purged", "queue/put_back"})
# Scripts of bulk acts.
BULK: Final = frozenset(
    {"queue/requeue", "queue/take_back", "queue/discard", "queue/cancel", "queue/due_now", "job_cancel"}
)
RECORDED: Final = ("{*}:job:ended*", "unlink")
RECORDS: Final = ("xread", "xrange", "xlen", "zadd", "zremrangebyscore", "hsetnx", "pexpire")


@dataclass(frozen=True, slots=True)
class Role:
    """Rights of one kind of process.

    Args:
        scripts: Names of Lua files that it runs.
        plain: Commands that it sends beside :data:`COMMON`.
        keys: Patterns of keys below the prefix; ``%R~`` before one that it only reads.
        only: Patterns of keys below the prefix, and commands that are allowed on these alone.
    """

    scripts: frozenset[str]
    plain: tuple[str, ...]
    keys: tuple[str, ...] = ("~*",)
    only: tuple[tuple[str, str], ...] = ()

    @property
    def commands(self) -> frozenset[str]:
        """Commands that it may run on every key of the yard."""
        of_addons = (command for addon in addons() for command in addon.commands)
        return frozenset((*COMMON, *of_addons, *self.plain, *commands_of(self.scripts))) - {
            command for _, command in self.only
        }


def every_script() -> frozenset[str]:
    """Return the names of all Lua files, as in :func:`switchyard.broker.redis.scripts.source`."""
    files = LUA.rglob("*.lua")
    names = (file.relative_to(LUA).with_suffix("").as_posix() for file in files)
    return frozenset(name for name in names if not name.startswith("include/"))


def commands_of(scripts: Iterable[str]) -> frozenset[str]:
    """Return the commands that Lua files may call, in lower case: their own, and those of functions that they use."""
    calls = (argument for name in scripts for argument in CALL.findall(_reachable(name)))
    return frozenset(word.lower() for argument in calls for word in re.findall(r'"([A-Za-z]+)"', argument))


def _reachable(name: str) -> str:
    """Return a script's text with the included functions that it uses, directly or by others."""
    text = (LUA / f"{name}.lua").read_text()
    included = "".join((LUA / "include" / f"{other}.lua").read_text() for other in INCLUDE.findall(text))
    functions = {found[1]: found[0] for found in FUNCTION.finditer(included)}
    reached = text + FUNCTION.sub("", included)
    while used := [name for name in functions if re.search(rf"\b{name}\(", reached)]:
        reached += "".join(functions.pop(name) for name in used)
    return reached


def roles(queues: Iterable[QueueKeys] = ()) -> dict[str, Role]:
    """Return each role by its name.

    A ``producer`` sends to some queues, follows their jobs, and counts limits: it sees no key of pools, alerts and
    locks, and cannot change the keyspace id. A ``worker`` is a pool.
    The ``scheduler`` also writes history, sends alerts, looks at all that the overview looks at, does bulk acts, and
    drops or puts back what purges have set aside. The ``room`` is a web with API, pages and commands.
    """
    sends = frozenset({"queue/enqueue", "queue/notify", "job_read", "limit_change", "window_reserve", "batch_add"})
    schedules = sends | PURGES | BULK | {
        "alert_claim", "alert_raise", "alert_settle", "facts_sample", "history_remove", "job_write", "job_sweep",
        "lock_take", "lock_release", "generation_make", "batch_count", "ends_drop",
    }  # fmt: skip
    works = every_script() - {"generation_accept"}
    # Commands that remove whole keys, on keys that hold no message.
    own = (("lock:*", "del"), ("{*}:refused", "del"))
    sent_to = tuple(f"~{queue.base.partition(':')[2]}*" for queue in queues)
    counted = ("~limit:*", "~window:*", "~group:*", "~batch:*", "~{batches}:*", "~abort:*", "%R~generation*")
    lists = (
        "lrange", "zrange", "zcount", "zrevrank", "zrevrange", "zrangebyscore", "mget", "hstrlen", "hscan", "xrevrange",
        "zrevrangebyscore",
    )  # fmt: skip
    works_plain = (
        *RECORDS, *lists, "blpop", "hset", "hdel", "hincrby", "srem", "zrem", "expire", "setrange", "lpush",
        "zrangebylex", "lindex",
    )  # fmt: skip
    scheduled = (
        ("{alerts}:*", "del"), RECORDED, ("batch:*", "unlink"), ("{*}:aside:*", "ltrim"), ("{*}:aside:*", "unlink"),
    )  # fmt: skip
    looks = ("scan", "slowlog|get", "setrange", "zrangebylex", "lindex", "pttl")
    return {
        "producer": Role(sends, RECORDS, (*sent_to, *counted)),
        "scheduler": Role(
            schedules, (*RECORDS, *lists, *looks, "hset", "hdel", "hincrby", "srem", "expire"), only=(*own, *scheduled)
        ),
        "worker": Role(works, works_plain),
        "room": Role(every_script(), (*works_plain, *looks)),
    }


def line(name: str, role: Role, *, prefix: str = "switchyard", user: str = "") -> str:
    """Return a role as a line of an ACL file: a user (``<prefix>-<role>``) that is off and has no password."""
    allowed = " ".join(f"+{command}" for command in sorted(role.commands))
    only = "".join(f" (~{prefix}:{pattern} +{command})" for pattern, command in role.only)
    keys = " ".join(key.replace("~", f"~{prefix}:", 1) for key in role.keys)
    return f"user {user or f'{prefix}-{name}'} off resetchannels {keys} -@all {allowed}{only}"


def render(users: Mapping[str, Role] | None = None) -> str:
    """Return an ACL file with a user for each role, by default :func:`roles`. The default user stays as it is: open."""
    return "".join(f"{line(name, role)}\n" for name, role in (users or roles()).items())
