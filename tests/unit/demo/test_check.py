"""The demo's check notices each wrong outcome; its state folder is for one demo and its owner only."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demo import work
from demo.sample import Job, Order, Seen
from demo.state import DemoError, StateFolder, StateLock, Stopped, load_identity, read_private, write_private
from demo.work import WORK
from project.config import BASE_DIR

RECEIVER = "http://127.0.0.1:9"


class World:
    """The traces that sample work leaves, put there by hand, and the order they are of."""

    def __init__(self) -> None:
        self.letters: list[Any] = []
        self.requests: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.rows: dict[str, int] = {}
        run: Any = SimpleNamespace(
            key="run",
            receiver=RECEIVER,
            mails=lambda: self.letters,
            arrived=lambda path: [entry for entry in self.requests if entry["path"] == path],
            file_of=lambda job: self.files.get(job.job_id, b""),
            count=lambda model, **conditions: self.rows.get(model, 0),
            page=lambda address: b"",
        )
        self.order = Order(run)

    def job(self, job_id: str, state: str = "succeeded", **body: Any) -> None:
        self.order.jobs = [job for job in self.order.jobs if job.job_id != job_id]
        self.order.jobs.append(Job("a job", job_id, {"state": state, "attempts": 1, **body}))

    def mail(self, to: str, message_id: str, subject: str = "Hello") -> None:
        self.letters.append({"X-Envelope-To": to, "Message-ID": f"\r\n {message_id}", "Subject": subject})

    def arrive(self, path: str, status: int, signed: bool = True) -> None:
        self.requests.append({"id": "msg_1", "path": path, "status": status, "signature_ok": signed})


@pytest.fixture
def world() -> World:
    return World()


def test_every_reset_must_have_been_mailed_exactly_once(world: World) -> None:
    for number in range(5):
        world.job(f"job-{number}")
        world.mail("ada@example.com", f"<job-{number}.password_reset@switchyard.example>")
    assert work.resets(world.order) == Seen("5 succeeded, 5 mails", as_expected=True)

    world.mail("ada@example.com", "<job-0.password_reset@switchyard.example>")

    assert not work.resets(world.order).as_expected


def test_cancelled_job_must_have_sent_nothing(world: World) -> None:
    world.job("job", "cancelled")
    assert work.cancelled(world.order).as_expected

    world.mail("never@readers.example", "<job.newsletter@switchyard.example>")

    assert not work.cancelled(world.order).as_expected


def test_payment_that_was_sent_twice_must_be_booked_once(world: World) -> None:
    world.order.statuses = [202, 202]
    world.rows["shop.Payment"] = 1
    assert work.payments(world.order, "pay", [202, 202], 1) == Seen("202, 202, booked 1 times", as_expected=True)

    world.rows["shop.Payment"] = 2

    assert not work.payments(world.order, "pay", [202, 202], 1).as_expected


def test_healthy_endpoint_must_get_each_delivery_once_and_signed(world: World) -> None:
    world.job("job")
    world.arrive("/healthy", 200, signed=False)
    assert not work.healthy(world.order).as_expected

    world.requests.clear()
    world.arrive("/healthy", 200)
    assert work.healthy(world.order).as_expected
    world.arrive("/healthy", 200)

    assert not work.healthy(world.order).as_expected


def test_broken_endpoint_must_end_in_one_dead_letter_and_one_alert(world: World) -> None:
    world.job("job", "dead", reason="exhausted", attempts=6)
    world.rows["switchyard_dead_letters.DeadLetter"] = 1
    for _ in range(6):
        world.arrive("/broken", 500)
    assert not work.broken(world.order).as_expected

    world.mail("operations@switchyard.example", "<alert-1-0@switchyard>", "deliver_webhook gave up: DeliveryFailed")
    assert work.broken(world.order).as_expected
    world.mail("operations@switchyard.example", "<alert-2-0@switchyard>", "deliver_webhook gave up: DeliveryFailed")

    assert not work.broken(world.order).as_expected


def test_ten_mails_go_to_one_reader_and_the_limit_holds_the_others(world: World) -> None:
    for number in range(10):
        world.job(f"job-{number}-")
        world.mail("ada@readers.example", f"<job-{number}-.newsletter@switchyard.example>")
    world.job("held", "scheduled", reason="delay")
    assert not work.limited(world.order).as_expected

    world.job("held", "scheduled", reason="rate_limit")

    assert work.limited(world.order).as_expected


def test_a_reconciliation_must_have_waited_for_the_lock_of_its_month(world: World) -> None:
    times = {"enqueued_at": "2026-11-28T12:00:00+00:00", "started_at": "2026-11-28T12:00:00.1+00:00"}
    world.job("job", result=dict.fromkeys(work.COUNTS, 1), **times)
    assert not work.reconciliation(world.order).as_expected

    world.job("job", result=dict.fromkeys(work.COUNTS, 1), **times | {"started_at": "2026-11-28T12:00:02.1+00:00"})

    assert work.reconciliation(world.order).as_expected


def test_the_other_customer_must_not_be_served_last(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "cores_here", lambda: 2)
    for second in range(12):
        world.job(f"many-{second}", started_at=f"12:00:{second:02}")
    world.job("one", enqueued_at="12:00:01", started_at="12:00:06")
    assert work.in_turn(world.order).as_expected

    world.job("one", enqueued_at="12:00:01", started_at="12:00:12")

    assert not work.in_turn(world.order).as_expected


def test_before_anything_was_sent_nothing_but_what_needs_no_work_is_as_expected(world: World) -> None:
    assert not [row.what for row in WORK if row.look(world.order).as_expected]


def never() -> bool:
    return False


def folder_at(path: Path) -> StateFolder:
    state = StateFolder(path / "state")
    state.make()
    return state


def test_second_demo_on_a_folder_is_told_who_runs_the_first_and_how_to_start_beside_it(tmp_path: Path) -> None:
    state = folder_at(tmp_path)
    first = StateLock(state)
    first.acquire(is_stopping=never)
    first.announce("http://127.0.0.1:8000/")

    with pytest.raises(DemoError) as refusal:
        StateLock(state).acquire(is_stopping=never)

    said = str(refusal.value)
    assert str(state.root) in said
    assert f"process {os.getpid()}, http://127.0.0.1:8000/" in said
    assert "bin/demo --state DIR" in said
    first.release()


def test_processes_that_a_killed_demo_left_are_waited_for(tmp_path: Path) -> None:
    state = folder_at(tmp_path)
    program = (
        "import sys, subprocess; from pathlib import Path; from demo.state import StateFolder, StateLock\n"
        "lock = StateLock(StateFolder(Path(sys.argv[1]))); lock.acquire(is_stopping=lambda: False)\n"
        "subprocess.Popen(['sleep', '0.5'], close_fds=False); import os; os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", program, str(state.root)], cwd=BASE_DIR, check=False)
    lock = StateLock(state)
    with pytest.raises(DemoError, match="processes of a demo that was killed"):
        lock.acquire(is_stopping=never, timeout_s=0.05)

    lock.acquire(is_stopping=never)

    lock.release()


def test_waiting_for_a_folder_ends_when_somebody_asks_to_stop(tmp_path: Path) -> None:
    state = folder_at(tmp_path)
    first = StateLock(state)
    first.acquire(is_stopping=never)
    write_private(state.owner, {"pid": 0})

    with pytest.raises(Stopped):
        StateLock(state).acquire(is_stopping=lambda: True)

    first.release()


def test_folder_and_its_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    state = folder_at(tmp_path)
    load_identity(state.identity).save(state.identity)

    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.identity.stat().st_mode) == 0o600


def test_what_is_ours_in_a_folder_that_others_can_look_into_is_closed_to_them(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.root.mkdir(mode=0o755)
    state.mailbox.mkdir(mode=0o755)
    state.database.touch(mode=0o644)

    state.make()

    ours = (state.logs, state.metrics, state.media, state.mailbox, state.database, state.lock)
    assert [path.name for path in ours if path.stat().st_mode & 0o077] == []


def test_identity_stays_the_same_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    first = replace(load_identity(path), broker_port=1234, smtp_port=2345, receiver_port=3456)
    first.save(path)

    assert load_identity(path) == first
    assert len({first.django_secret_key, first.payment_secret, first.admin_password}) == 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"django_secret_key": "", "broker_port": "1"}'])
def test_identity_that_cannot_be_used_is_made_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "identity.json"
    path.write_text(content)

    made = load_identity(path)

    assert len(made.django_secret_key) >= 32
    assert made.broker_port == 0


def test_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    write_private(path, {"a": 1})

    with pytest.raises(TypeError):
        write_private(path, {"a": object()})

    assert read_private(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["secrets.json"]
