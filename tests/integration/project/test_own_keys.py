"""Values of any kind in the yard's own keys: no page, command or process ends for them, and the doctor names the key.

What is written is drawn at random; ``OWN_KEYS_SEED`` repeats a run, and ``-s`` prints its seed.
"""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import time
import traceback
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from project.config import BASE_DIR
from switchyard.api.models import covered_scopes
from switchyard.broker.keys import Keys
from switchyard.broker.redis import own_keys
from switchyard.operations.findings.examine import examine
from switchyard.operations.findings.facts import _actor
from tests.integration.documentation.test_keys import MEMBER, OWNER, ROWS, filled
from tests.integration.documentation.test_keys import server as server
from tests.integration.project.test_urls import bear
from tests.waiting import wait_for

NESTED, LONG, NO_TEXT = b"[" * 200_000, b"9" * 5_000, b'{"\xff":1}'
HOSTILE = [
    *(b"", b"null", b"[1]", b"{}", b'"x"', b"true", b"-1", b"1e308", b"1.5", b"NaN", b"inf", b"x y", b"9" * 19, LONG),
    *(b"\xff\xfe", NO_TEXT, rb'"\ud800"', NESTED, b'{"a":' * 100_000, b"\x91" * 200_000, b"\xdd\xff\xff\xff\xff"),
]
ODD: list[Any] = [None, True, -1, 1.5, 1e308, 10**30, 2**62, "x", "\x1b[31m", "\ud800", [], [1], {}, {"x": {}}, [[[]]]]
SCORES = ("inf", "-inf", "1e308", "-1", "0", "1.5")
OTHERS = {
    "string": ("SET", "x"), "list": ("RPUSH", "x"), "hash": ("HSET", "x", "x"), "set": ("SADD", "x"),
    "zset": ("ZADD", 1, "x"), "stream": ("XADD", "*", "x", "x"),
}  # fmt: skip
KINDS = {"Sorted set": "zset"}
EACH = [(filled(name), KINDS.get(row.kind, row.kind.lower())) for row in ROWS for name in row.names]
ROOM, QUEUE = "/admin/operations/", "/admin/operations/queues/webhook/"
JOBS, LETTERS = "/admin/switchyard_jobs/job/", "/admin/switchyard_dead_letters/deadletter/"
PAGES = [
    *("/metrics", "/healthz", "/readyz", "/api/v1/queues", "/api/v1/jobs", "/api/v1/jobs/held"),
    *(f"{ROOM}{page}/" for page in ("workers", "workers/live", "queues", "strip", "live", "actors", "schedules")),
    *(f"{ROOM}{page}" for page in ("", "find/?q=held", "instructions/quiet/", "chosen-queues/pause/?queue=webhook")),
    *(f"{QUEUE}{page}" for page in ("", "live/", "pause/", "purge/", "relocate/")),
    *(f"{JOBS}{page}" for page in ("", "?state=running", "?state=scheduled", "?state=queued&queue=webhook")),
    *(f"{JOBS}{page}/" for page in ("held", "done", "later", "waits-2", "purged", "held/live", "held/cancel")),
    *(LETTERS, f"{LETTERS}quarantine/", "/admin/switchyard_alerts/alert/", f"{ROOM}retention/", f"{ROOM}audit/"),
]
COMMANDS = [
    *("status", "doctor", "workers list", "broker", "check_backlog", "history", "topology", "actors list"),
    *(f"queues {line}" for line in ("list", "show webhook", "show webhook --place scheduled")),
    *(f"jobs {line}" for line in ("list", "list --state running", "show held", "show done", "show later")),
    *("deadletters list", "deadletters list --quarantined", "schedules list", "alerts list"),
]


@pytest.fixture
def processes(server, process_environment, transactional_db, tmp_path):
    """A pool, the scheduler and the history writer, ready."""
    server.delete(Keys().generations_missed())
    started = {}
    ready = {"runpool webhook": "webhook: ready", "runscheduler": "leading", "runhistory": "writes the history"}
    for name in ready:
        log = tmp_path / f"{name}.log"
        with log.open("wb") as output:
            command = [sys.executable, str(BASE_DIR / "manage.py"), "switchyard", *name.split()]
            environment = process_environment | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / name)}
            started[name] = subprocess.Popen(command, env=environment, stdout=output, stderr=output), log
    try:
        wait_for(lambda: all(ready[name] in log.read_text() for name, (_, log) in started.items()), 90)
        yield started
    finally:
        for process, _ in started.values():
            process.terminate()
        for process, _ in started.values():
            process.wait(60)


def odd(draw: random.Random, known: bytes) -> bytes:
    """Return a hostile value, or a known one, JSON or MessagePack, of which one part is another."""
    for codec in (msgspec.json, msgspec.msgpack):
        with contextlib.suppress(ValueError, RecursionError, OverflowError):
            found: Any = codec.decode(known)
            at, place = {"": found}, ""
            while isinstance(at[place], dict | list) and at[place] and draw.random() < 0.8:
                at = at[place]
                place = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if at[place] is not found:
                at[place] = draw.choice(ODD)
                return json.dumps(found).encode() if codec is msgspec.json else msgspec.msgpack.encode(found)
    return draw.choice(HOSTILE)


def harm(server: Any, key: str, kind: str, draw: random.Random) -> list[Any]:
    """Write something odd to a key, and return what."""
    if draw.random() < 0.2:
        server.delete(key)
        command, *words = OTHERS[draw.choice([other for other in OTHERS if other != kind])]
        return said(server, [command, key, *words])
    if kind == "string":
        return said(server, ["SET", key, odd(draw, server.get(key) or b"")])
    if kind == "hash":
        fields = server.hgetall(key)
        name = draw.choice([*fields, *fields, *HOSTILE, b"webhook:host:9"])
        return said(server, ["HSET", key, name, odd(draw, fields.get(name) or draw.choice([b"", *fields.values()]))])
    if kind == "zset":
        member = draw.choice(server.zrange(key, 0, -1) or [b"x"])
        member = draw.choice([member, member, member + b"\xff", member.replace(b"live", b"dead"), odd(draw, member)])
        return said(server, ["ZADD", key, draw.choice(SCORES), member])
    if kind == "stream":
        fields = draw.choice(server.xrange(key, count=10) or [(b"", {b"n": b"1", b"rows": b"\x90"})])[1]
        words = [word for name, value in fields.items() for word in (name, draw.choice([value, odd(draw, value)]))]
        return said(server, ["XADD", key, "*", *words])
    return said(server, ["SADD" if kind == "set" else draw.choice(["LPUSH", "RPUSH"]), key, odd(draw, b"")])


def said(server: Any, words: list[Any]) -> list[Any]:
    server.execute_command(*words)
    return [word if len(str(word)) < 80 else f"{word[:30]!r}... {len(word)} bytes" for word in words]


def page(client: Client, path: str) -> str:
    """Return how a page failed; "" for one that was answered."""
    answer = client.get(path)
    if answer.status_code != 500:
        return ""
    # The API answers an exception itself.
    return "".join(traceback.format_exception(*answer.exc_info)[-8:]) if answer.exc_info else answer.content.decode()


def command(line: str) -> str:
    """Return how a command failed; "" for one that ended as its manual says."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            call_command("switchyard", *line.split())
        except (SystemExit, CommandError):
            return ""
        except Exception:  # noqa: BLE001  it is what a person would see
            return traceback.format_exc()[-3_000:]
    return ""


@pytest.mark.parametrize("seconds", [10, pytest.param(1_800, marks=[pytest.mark.long, pytest.mark.timeout(2_400)])])
def test_odd_values_in_any_key_end_no_page_command_or_process(seconds, processes, facilities, server):
    seed = int(os.environ.get("OWN_KEYS_SEED") or random.randrange(10**6))
    print(f"OWN_KEYS_SEED={seed}")
    draw, client, user = random.Random(seed), Client(raise_request_exception=False), User.objects.create_superuser("x")
    client.force_login(user)
    bear(client, user, covered_scopes(user))
    keys, pool = Keys(), processes["runpool webhook"][0].pid
    mine = wait_for(lambda: [found.member for found in facilities.pools.read_all() if found.pid == pool])[0]
    live = [keys.pool_report(mine), keys.pool_instruction(mine), keys.stacks_asked(mine)]
    looks = [*((path, lambda path=path: page(client, path)) for path in PAGES),
             *((line, lambda line=line: command(line)) for line in COMMANDS)]  # fmt: skip
    until, deck = time.monotonic() + seconds, list[tuple[str, str]]()
    while time.monotonic() < until:
        deck = deck or draw.sample([*EACH, *((key, "string") for key in live)], len(EACH) + len(live))
        chosen = [deck.pop() for _ in range(min(len(deck), draw.choice((1, 1, 2))))]
        before = {key: (server.dump(key), max(int(server.pttl(key)), 0)) for key, _ in chosen}  # type: ignore[arg-type]

        written = [harm(server, key, kind, draw) for key, kind in chosen]

        for name, look in draw.sample(looks, 12):
            assert not (fault := look()), f"{name} after {written} (seed {seed}):\n{fault}"
        broken = [found.seen for found in examine() if found.code == "broken"]
        ended = [(name, log.read_text()[-3_000:]) for name, (one, log) in processes.items() if one.poll() is not None]
        assert (broken, ended) == ([], []), f"after {written} (seed {seed})"
        for key, (dump, ttl) in before.items():
            server.delete(key)
            if dump is not None:
                server.restore(key, ttl, dump)  # type: ignore[arg-type]
    wait_for(lambda: [found.state for found in facilities.pools.read_all() if found.pid == pool] == ["up"])


def test_the_doctor_names_each_key_that_cannot_be_read(db, server):
    keys, family = Keys(), Keys().queue("webhook")
    odd_parts = {
        family.paused: ("SET", NESTED),
        family.token: ("SET", LONG),
        family.leases: ("ZADD", 2**52, b"\xff/live"),
        family.hold(OWNER): ("HSET", "held", "x"),
        family.purges: ("HSET", "a-purge", NESTED),
        family.quarantine: ("LPUSH", NESTED),
        family.dead_letters: ("HSET", "dead", NESTED),
        keys.pool_report(MEMBER): ("SET", NO_TEXT),
        keys.pool_beats(): ("HSET", "x:y:1", LONG),
        keys.pool_instruction("webhook:up:1"): ("SET", NESTED),
        keys.alert_group("a-fingerprint"): ("HSET", "sample", NESTED),
        keys.alerts_due(): ("ZADD", 1, b"\xff"),
        keys.history_counts(): ("HSET", "written", LONG),
    }
    report = msgspec.json.decode(server.get(keys.pool_report(MEMBER)) or b"")
    server.set(keys.pool_report("webhook:up:1"), json.dumps(report | {"host": "up", "pid": 1}))
    server.sadd(keys.pool_reports(), "webhook:up:1")
    for key, (word, *words) in odd_parts.items():
        server.execute_command(word, key, *words)
    wrong = keys.queue("slow").dead
    server.set(wrong, "x")

    said = " ".join(found.seen for found in examine() if found.code == "wrong_type")

    assert odd_parts.keys() - set(own_keys.noted()) == set()
    assert wrong in said and f"something else wrote to {len(odd_parts) + 1} keys" in said


def test_the_actor_of_a_parked_call_can_be_shown():
    assert _actor(b'"\\ud800"') == "?"
