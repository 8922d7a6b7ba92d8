"""Users of each role on both servers: what they may do, and what they are refused."""

import ast
import re
from collections.abc import Iterator

import pytest
import redis

from switchyard.broker.errors import BrokerRefused
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis import acl
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import LUA
from switchyard.broker.stores.batches import Batches, BatchFacts, member_id
from switchyard.workers.preflight import Watch
from tests.chaos.server import SERVER_NAMES, server_binary
from tests.tls import GuardedServer
from tests.unit.documentation.pages import ROOT

ROLES = acl.roles([Keys().queue("work"), Keys().queue("other")])
# Files with words of commands that they do not send: a table, an entry point, settings.
NOT_SENT = ("switchyard.py", "conf.py")
REFUSED = r"NOPERM|permission|can't run this command"
DESTRUCTIVE = (
    ("FLUSHALL",), ("FLUSHDB",), ("KEYS", "*"), ("CONFIG", "SET", "maxmemory", "1"), ("SHUTDOWN",),
    ("ACL", "LIST"), ("CONFIG", "GET", "masterauth"), ("GET", "elsewhere"), ("SUBSCRIBE", "a"),
    ("REPLICAOF", "NO", "ONE"), ("SCRIPT", "FLUSH"),
)  # fmt: skip


@pytest.fixture(scope="module", params=SERVER_NAMES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    """A server that has read the rendered file, with passwords."""
    users = re.sub(r"user (\S+) off", r"user \1 on >\1", acl.render(ROLES))
    server = GuardedServer(tmp_path_factory.mktemp("acl") / "server", server_binary(request.param), users)
    yield server
    server.close()


def calls_of(server: GuardedServer, role: str) -> RedisCalls:
    return RedisCalls(connect(server.url(f"switchyard-{role}"), profile="quick"), budget_s=1.0)


@pytest.mark.parametrize("role", ROLES)
def test_both_servers_read_the_file_and_a_role_may_do_what_the_watch_does(server, role):
    calls = calls_of(server, role)

    found = Watch(calls, Keys(), ("work",), production=True).look().findings
    calls.close()

    assert [finding.code for finding in found if finding.code in ("unverified", "unreadable", "away")] == []


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("words", DESTRUCTIVE, ids=" ".join)
def test_no_role_may_destroy_or_look_elsewhere(server, role, words):
    calls = calls_of(server, role)

    with pytest.raises(BrokerRefused, match=REFUSED):
        calls.command(*words)
    calls.close()


def test_a_producer_sends_and_cannot_delete_a_queue_or_fetch_from_it(server):
    calls = calls_of(server, "producer")
    family = QueueOperations(calls, Keys().queue("work"))

    assert family.enqueue([Entry("a", b"{}")]) == ["a"]
    for refused in (("DEL", family.keys.bodies), ("UNLINK", family.keys.bodies), ("HDEL", family.keys.bodies, "a")):
        with pytest.raises(BrokerRefused, match=REFUSED):
            calls.command(*refused)
    with pytest.raises(BrokerRefused, match=REFUSED):
        family.join("thief.1/live")
        family.fetch("thief.1/live", 1, request=1)
    calls.close()


FOREIGN = (
    *(("SADD", Keys().pool_reports(), "x"), ("SET", Keys().pool_instruction("a:b:1"), "x")),
    *(("GET", Keys().pool_report("a:b:1")), ("HSET", Keys().pool_beats(), "x:y:1", "9")),
    *(("ZADD", Keys().alerts_due(), 1, "x"), ("HSET", Keys().alert_group("x"), "count", 1)),
    *(("HSET", Keys().generation(), "id", "evil"), ("SADD", Keys().generations_missed(), "x")),
    *(("SET", Keys().lock("scheduler"), "x"), ("HSET", Keys().queue("undeclared").bodies, "a", "{}")),
)


@pytest.mark.parametrize("words", FOREIGN, ids=lambda words: " ".join(map(str, words[:2])))
def test_a_producer_has_no_key_of_pools_alerts_locks_and_the_keyspace_id(server, words):
    calls = calls_of(server, "producer")

    assert calls.command("HGETALL", Keys().generation()) == []
    with pytest.raises(BrokerRefused, match=REFUSED):
        calls.command(*words)
    calls.close()


def test_a_worker_fetches_and_acknowledges(server):
    producer, worker = calls_of(server, "producer"), calls_of(server, "worker")
    sends, works = (QueueOperations(calls, Keys().queue("other")) for calls in (producer, worker))

    sends.enqueue([Entry("b", b"{}")])
    works.join("w.1/live")
    found = works.fetch("w.1/live", 1, request=1)
    works.ack("w.1/live", [grant.lease for grant in found.grants])

    assert [grant.lease.id for grant in found.grants] == [b"b"]
    assert worker.command("HLEN", works.keys.bodies) == 0
    for calls in (producer, worker):
        calls.close()


def test_a_producer_makes_a_batch_that_the_scheduler_counts_and_forgets_and_the_room_lists(server):
    made, counts, seen = (Batches(calls_of(server, role), Keys()) for role in ("producer", "scheduler", "room"))
    id_ = member_id("0123456789ab", "one")

    made.make("0123456789ab")
    assert made.add("0123456789ab", [(id_, "work")], facts=BatchFacts("import")) == [True]
    made.note("0123456789ab", "closed")
    counts.note_end("work", id_, "done")
    assert counts.noted(["work", "other"]) == (["work"], None)
    [ends] = counts.ends("work")
    counts.count("0123456789ab", [(id_, "done")])
    counts.drop_ends("work", ends)
    [(listed, _)] = seen.newest(limit=9)
    [record] = seen.read([listed])
    assert record is not None
    assert (record.state, seen.members(listed, "done").found, seen.unfinished(9)) == (
        "succeeded", {id_: "work"}, ["0123456789ab"],
    )  # fmt: skip
    assert counts.age_ms(listed) < 60_000
    counts.to_look_at(9)
    counts.forget(listed)
    assert seen.newest(limit=9) == []


def test_every_lua_file_is_in_a_role_and_its_commands_are_allowed_there():
    for path in (path for path in LUA.rglob("*.lua") if "include" not in path.parts):
        name = path.relative_to(LUA).with_suffix("").as_posix()
        runs = [role for role in ROLES.values() if name in role.scripts]
        words = {word.lower() for word in re.findall(r'redis\.p?call\("([A-Z]+)"', path.read_text())}

        assert runs, f"{name} is in no role of switchyard/broker/redis/acl.py"
        for role in runs:
            assert words <= role.commands | {command for _, command in role.only}, name


@pytest.mark.parametrize(("folder", "role"), [("switchyard/broker", "worker"), ("switchyard", "room")])
def test_every_command_that_the_code_names_is_allowed_there(server, folder, role):
    admin = RedisCalls(connect(server.url(), profile="quick"))
    known = {str(name, "utf-8") for name in admin.command("COMMAND", "LIST")}
    admin.close()
    named: dict[str, str] = {}
    for path in (ROOT / folder).rglob("*.py"):
        if path.name not in NOT_SENT and "addons" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isupper():
                    named[node.value.lower()] = str(path.relative_to(ROOT))
    allowed = {command.partition("|")[0] for command in ROLES[role].commands}

    # An error; and settings, which answer passwords: where they may not be read, INFO says enough.
    missing = {word: named[word] for word in sorted(named.keys() & known - allowed - {"readonly", "config"})}

    assert missing == {}, f"add them to role {role} of switchyard/broker/redis/acl.py"


def test_passwords_are_set_by_the_operator(server):
    assert all(" off " in line and ">" not in line and "nopass" not in line for line in acl.render().splitlines())
    with pytest.raises(redis.AuthenticationError):
        connect(server.url("switchyard-nobody"), profile="quick").ping()
