"""Commands before a deploy: whether its code can run the backlog, and the slots that the work needs."""

import json
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
import redis
from django.core.management import CommandError, call_command
from dramatiq import Message, pipeline

from project.topology import YARD
from switchyard.broker.interface import Facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.yard_facts import MINUTE_MS, RUN_MS, RUNS, SUCCEEDED, WAITS, bucket_of, field
from tests.factories.commands import end_of, output_of


@pytest.fixture
def broker(facilities: Facilities) -> RedisBroker:
    """The project's broker, with an actor more: ``bill(customer, *, month)``."""
    found = dramatiq.get_broker()
    assert isinstance(found, RedisBroker)

    @dramatiq.actor(actor_name="bill", queue_name="default")
    def bill(customer: int, *, month: str) -> None: ...

    return found


def put(broker: RedisBroker, actor: str, *args: Any, lane: str = "default", delay: int = 0, **kwargs: Any) -> str:
    """Enqueue a message as other code would have, and return its id."""
    message: Message[Any] = Message(lane, actor, args, kwargs, {"enqueued_at": 1})
    return broker.enqueue(message, delay=delay or None).message_id


def test_a_backlog_that_the_code_can_run_is_fine(broker):
    put(broker, "bill", 1, month="May")
    put(broker, "bill", 1, month="May", delay=60_000)

    code, told = end_of("check_backlog")

    assert (code, told) == (0, "2 messages of 1 actor looked at; this code can run all of them\n")
    assert end_of("check_backlog", "--queue", "billing")[1].startswith("0 messages")


def test_every_place_is_looked_into_and_told_by_actor_with_samples(broker, valkey):
    waits = [put(broker, "gone", number) for number in range(5)]
    later = put(broker, "bill", 1, mont="May", delay=60_000)
    retries = put(broker, "bill", 1, 2, 3, month="May", lane="default-retry")
    fine = put(broker, "bill", 1, month="May", lane="billing")
    family = broker.families["default"]
    family.join("somebody/live")
    [leased] = family.fetch("somebody/live", 1, request=1).grants
    family.enqueue([Entry("odd", b"no JSON")])
    before = everything(valkey)

    code, told = end_of("check_backlog", "--json")
    shown = json.loads(told)

    assert code == 1
    assert everything(valkey) == before, "it only reads"
    assert (shown["ok"], shown["looked_at"]) == (False, 9)
    assert sorted((found["actor"], found["kind"], found["count"]) for found in shown["troubles"]) == [
        ("?", "unreadable", 1), ("bill", "arguments", 1), ("bill", "arguments", 1), ("gone", "unknown_actor", 5),
    ]  # fmt: skip
    details = {found["detail"].partition(";")[0]: found["samples"] for found in shown["troubles"]}
    assert details["missing a required argument: 'month'"] == [later]
    assert details["too many positional arguments"] == [retries]
    assert details["this code has no such actor"][0] in waits and len(details["this code has no such actor"]) == 3
    assert str(leased.lease.id, "ascii") in waits
    assert fine not in told
    assert end_of("check_backlog", "--queue", "billing")[0] == 0
    assert "default: 5 of gone: this code has no such actor (such as " in end_of("check_backlog")[1]


def test_a_queue_that_the_topology_has_not_any_more_is_trouble(broker, valkey):
    old = QueueOperations(broker.calls, broker.keys.queue("retired"))
    old.enqueue([Entry("left", b'{"actor":"bill","sent_at":1,"args":[1],"kwargs":{"month":"May"}}')])

    code, told = end_of("check_backlog")

    assert code == 1
    assert "retired: 1 of bill: the topology has no queue retired (such as left)" in told


def test_what_follows_a_message_is_looked_at_too(broker):
    def step(actor: str, *args: Any, **kwargs: Any) -> Message[Any]:
        return Message("default", actor, args, kwargs, {})

    pipeline([step("bill", 1, month="May"), step("bill", month="June"), step("gone")], broker=broker).run()
    code, told = end_of("check_backlog", "--json")
    first = {found["detail"].partition(";")[0] for found in json.loads(told)["troubles"]}
    broker.flush_all()
    pipeline([step("bill", 1, month="May"), step("bill", month="June").copy(options={"pipe_ignore": True})]).run()
    ignored, told_then = end_of("check_backlog", "--json")
    broker.flush_all()
    options = {"enqueued_at": 1, "on_failure": "lost", "group_completion_callbacks": [step("bill", 1).asdict()]}
    broker.enqueue(Message("default", "bill", (1,), {"month": "May"}, options))
    followed = {found["actor"] for found in json.loads(end_of("check_backlog", "--json")[1])["troubles"]}

    assert (code, first) == (1, {"this code has no such actor"}), "the second step gets the first one's result"
    assert ignored == 1 and "missing a required argument: 'customer'" in told_then
    assert followed == {"lost", "bill"}


@pytest.mark.parametrize(
    "options",
    [
        {"pipe_target": {"actor_name": "bill", "args": 5}},
        {"pipe_target": {"actor_name": "bill", "kwargs": [1, "a"]}},
        {"pipe_target": {"actor_name": "bill", "options": "none"}},
        {"pipe_target": {"options": 7}},
        {"group_completion_callbacks": 5},
    ],
)
def test_what_cannot_be_read_of_what_follows_stops_nothing(broker, options):
    for id_, odd in (("odd", options), ("plain", {"enqueued_at": 1})):
        body = codec.encode(Message("default", "bill", (1,), {"month": "May"}, odd, id_, 1))
        broker.families["default"].enqueue([Entry(id_, body)])

    code, told = end_of("check_backlog", "--json")

    assert (code, json.loads(told)["looked_at"]) == (1, 2)
    assert [(found["kind"], found["samples"]) for found in json.loads(told)["troubles"]] == [("unreadable", ["odd"])]


@pytest.mark.django_db
def test_a_name_that_somebody_made_up_drives_no_terminal(broker):
    put(broker, "\x1b[2Jevil")

    for text in (end_of("check_backlog")[1], output_of("jobs", "list", "--queue", "default")):
        assert "\\x1b[2Jevil" in text and "\x1b" not in text


def everything(server: redis.Redis) -> dict[bytes, object]:
    """Return what every key holds, whatever order the server keeps it in."""
    read: dict[bytes, Any] = {
        b"hash": server.hgetall,
        b"list": lambda key: server.lrange(key, 0, -1),
        b"zset": lambda key: server.zrange(key, 0, -1, withscores=True),
        b"set": server.smembers,
    }
    return {key: read.get(server.type(key), server.get)(key) for key in server.scan_iter()}


def test_a_broker_that_does_not_answer_ends_the_check_with_one_line(monkeypatch):
    gone = RedisBroker(connect("redis://127.0.0.1:1/0"), Keys(), middleware=[])
    monkeypatch.setattr(dramatiq, "get_broker", lambda: gone)

    with pytest.raises(CommandError, match=r"^check_backlog: broker did not answer SCAN"):
        end_of("check_backlog")


# The same queues, the default one with the slots of an eighth.
NEXT = replace(YARD, pools=tuple(replace(each, slots=1) if each.name == "default" else each for each in YARD.pools))


@pytest.fixture
def record(facilities: Facilities, valkey: redis.Redis) -> None:
    """Five minutes in which 20 messages a second of 100 to 160 ms ran in ``default``."""
    now = facilities.facts.server_ms() // MINUTE_MS * MINUTE_MS
    counts = {WAITS: 1_200, SUCCEEDED: 1_200, RUNS + 5: 1_200, RUN_MS: 150_000}
    for minute in range(3, 8):
        key = facilities.records.keys.facts_bucket(bucket_of(now - minute * MINUTE_MS))
        valkey.hset(key, mapping={field("q:default", code): count for code, count in counts.items()})
    assert facilities.facts.fold(now) > 0


def planned(capsys: Any, *arguments: str) -> dict[str, Any]:
    call_command("switchyard", "plan", "--json", *arguments)
    return {pool["pool"]: pool for pool in json.loads(capsys.readouterr().out)["pools"]}


@pytest.mark.usefixtures("record")
def test_recorded_work_is_planned_and_replayed_through_another_topology(capsys):
    found = planned(capsys)
    other = planned(capsys, "--topology", f"{__name__}.NEXT")

    assert list(found) == list(other) == ["default"]
    default = found["default"]
    assert (default["arrivals_per_s"], default["promise_s"]) == (20.0, 1.0)
    assert default["run_mean_s"] == pytest.approx(0.125)
    assert (default["declared"]["slots"], default["declared"]["kept"]) == (8, 1.0)
    assert 3 <= default["needed"]["slots"] <= 4
    assert (default["processes"], other["default"]["processes"]) == (1, default["needed"]["slots"])
    assert (other["default"]["declared"]["slots"], other["default"]["declared"]["kept"]) == (1, 0.0)
    assert other["default"]["memory_mib"] > default["memory_mib"]


@pytest.mark.usefixtures("record")
def test_the_table_says_what_is_declared_and_what_is_needed(capsys):
    call_command("switchyard", "plan", "--minutes", "3")

    head, row, _, foot = capsys.readouterr().out.splitlines()
    assert [head.split()[0], row.split()[:2]] == ["pool", ["default", "20/s"]]
    assert foot.startswith("The busiest 3 min")


def test_without_a_record_the_command_says_what_to_give(facilities):
    with pytest.raises(CommandError, match=r"nothing ran since 24h.*--queue, --arrivals and --duration"):
        call_command("switchyard", "plan")


def test_given_work_of_several_queues_needs_no_broker(capsys, tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(
        '[urgent]\narrivals = ["5/s", "1800/m"]\nduration = "p50=20ms"\n'
        '[webhook]\narrivals = "36000/h"\nduration = "p50=150ms, p95=2s"\n'
    )

    found = planned(capsys, "--given", str(file), "--minutes", "1")

    assert (found["urgent"]["arrivals_per_s"], found["webhook"]["arrivals_per_s"]) == (30.0, 10.0)
    assert found["urgent"]["needed"]["slots"] < found["webhook"]["needed"]["slots"] < 64
    assert found["webhook"]["run_mean_s"] == pytest.approx(0.5, rel=0.1)


ONE = ["--queue", "default", "--arrivals", "20/s", "--duration", "p50=80ms"]


def test_one_queue_is_planned_for_another_promise(capsys):
    own, shorter = planned(capsys, *ONE), planned(capsys, *ONE, "--promise", "50ms")

    assert shorter["default"]["promise_s"] == 0.05
    assert shorter["default"]["needed"]["slots"] > own["default"]["needed"]["slots"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--queue", "default"], "go together; give all three"),
        ([*ONE[:3], "20", *ONE[4:]], "'20' is not a rate; write 20/s"),
        ([*ONE[:5], "80ms"], "not a duration; write p50=80ms,p95=400ms"),
        ([*ONE[:5], "p50=soon"], "'soon' is not a duration; write 80ms"),
        ([*ONE[:5], "p50=9s,p95=1s"], "above p95"),
        (["--queue", "mails", *ONE[2:]], "mails"),
        ([*ONE, "--topology", "project.topology.NONE"], "--topology: "),
        ([*ONE, "--topology", "project.topology.MB"], "is not a Yard"),
        (["--given", "/none.toml"], "write a table for each queue"),
        (["--since", "soon"], "'soon' is not a time"),
    ],
)
def test_what_cannot_be_planned_says_what_to_write(facilities, wrong, said):
    with pytest.raises(CommandError, match=said):
        call_command("switchyard", "plan", *wrong)
