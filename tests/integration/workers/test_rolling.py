"""F30, F31: from old code to new with work waiting. Pools of both releases on one queue, real processes."""

import json
import os
import signal
import uuid
from typing import Any

import pytest
from dramatiq import Message

from switchyard.broker.admin.browse import family_stats
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.stores.job_records import Job, JobRecords
from switchyard.conf import declared_yard
from tests.chaos.ledger import Account, Entry, account
from tests.integration.workers.bench.actors import ENDED, STARTED
from tests.integration.workers.conftest import BENCH, Bench
from tests.integration.workers.newer import ENDED as NEWER_ENDED
from tests.processes import titles_below
from tests.waiting import wait_for

RUNS_WITHIN_S = 20.0  # they would be due again 30 s after they were parked


class Roll:
    """A bench on which old pools (``urgent_job(token, ms, how)``) and new ones run."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.records = JobRecords(RedisCalls(bench.client), Keys(), [queue.name for queue in declared_yard().queues])
        self.ids: dict[str, str] = {}

    def start(self, release: str) -> Any:
        apps = {"old": BENCH, "new": "tests.integration.workers.newer"}[release]
        return self.bench.up("runpool", "urgent", apps=apps, log=release)

    def send(self, actor: str, *args: Any, lane: str = "urgent", **kwargs: Any) -> str:
        """Enqueue a message of the newer code, and return its token."""
        token = uuid.uuid4().hex
        message: Message[Any] = Message(lane, actor, (token, *args), kwargs, {})
        self.ids[token] = self.bench.broker.enqueue(message).message_id
        return token

    def record(self, token: str) -> Job | None:
        return self.records.read(self.ids[token])

    def parked(self) -> int:
        return family_stats(RedisCalls(self.bench.client), Keys().queue("urgent")).parked

    def account(self) -> Account:
        """Return the account of everything that was sent; what could not be would have raised."""
        done = [note["token"] for note in self.bench.notes(ENDED)] + [token for token, _ in self.ran()]
        sent = [
            Entry(phase, token, 0, 0.0) for token in self.bench.ids | self.ids for phase in ("attempted", "accepted")
        ]
        return account([*sent, *(Entry("completed", token, 0, 0.0) for token in done)])

    def ran(self) -> list[tuple[str, float]]:
        """Return what the newer actors ran, and with what."""
        notes = [json.loads(note) for note in self.bench.client.lrange(NEWER_ENDED, 0, -1)]  # type: ignore[union-attr]
        return [(note["token"], note["seconds"]) for note in notes]


@pytest.fixture
def roll(bench: Bench) -> Roll:
    return Roll(bench)


def test_what_only_new_code_knows_is_seen_parked_and_runs_when_a_new_pool_starts(roll):
    roll.start("old")
    tokens = {roll.send("audit", 0.0): 0.0 for _ in range(20)} | {
        roll.send("urgent_job", seconds=0.001): 0.001 for _ in range(20)
    }

    wait_for(lambda: all((found := roll.record(token)) and found.reason == "parked" for token in tokens))
    wait_for(lambda: roll.parked() == 40)
    records = [roll.record(token) for token in tokens]
    roll.start("new")
    wait_for(lambda: len(roll.ran()) == 40, RUNS_WITHIN_S)

    history = roll.account()
    print(history)
    assert (len(history.accepted), history.lost, history.duplicated, history.unexpected) == (40, (), (), ())
    assert {(found.state, found.attempts) for found in records if found} == {("scheduled", 0)}
    assert dict(roll.ran()) == tokens
    assert roll.bench.notes(STARTED) == [], "the old actor was entered"
    wait_for(lambda: {found.state for token in tokens if (found := roll.record(token))} == {"succeeded"})
    assert {found.attempts for token in tokens if (found := roll.record(token))} == {1}


def test_rolling_with_work_waiting_has_each_job_done_by_a_worker_that_can_none_with_wrong_arguments(roll):
    old_tokens = [roll.bench.send("urgent", ms=5) for _ in range(60)]
    new_tokens = {roll.send("audit", 0.005): 0.005 for _ in range(60)}
    old = roll.start("old")
    new = roll.start("new")
    for number in range(60):
        old_tokens.append(roll.bench.send("urgent", ms=5))
        new_tokens[roll.send("urgent_job", seconds=0.005)] = 0.005
        if number == 30:
            os.kill(titles_below(new.pid)["urgent child 1"], signal.SIGKILL)
    wait_for(lambda: {note["token"] for note in roll.bench.notes(ENDED)} >= set(old_tokens))
    old.send_signal(signal.SIGTERM)
    assert old.wait(60) == 0
    wait_for(lambda: {token for token, _ in roll.ran()} >= set(new_tokens))

    history = roll.account()
    dead = family_stats(RedisCalls(roll.bench.client), Keys().queue("urgent")).dead
    print(f"dead letters {dead}\n{history}")
    assert (len(history.accepted), history.lost, history.unexpected) == (240, (), ())
    assert len(history.duplicated) <= 4, "as many as ran in the child that was killed"
    assert {note["token"] for note in roll.bench.notes(ENDED)} == set(old_tokens)
    assert dict(roll.ran()) == new_tokens
    assert dead == 0
