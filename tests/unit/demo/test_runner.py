"""The demo's runner, lines, ports and environment; its check notices wrong outcomes; its folder is its owner's only."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from demo import addresses, work
from demo.addresses import Addresses, as_exports, settings_for, without_settings
from demo.job_lines import MOST_LINES, JobLines
from demo.runner import Part, Runner, StopRequest
from demo.sample import Job, Order, Seen
from demo.state import (
    DemoError,
    StateFolder,
    StateLock,
    Stopped,
    load_identity,
    read_private,
    write_private,
    write_private_text,
)
from demo.work import WORK
from project.config import BASE_DIR
from project.config import load as load_config
from tests.processes import is_alive
from tests.waiting import wait_for

AT = "2026-11-21T10:48:11.514869Z"
ADDRESSES = Addresses(web_port=8001, smtp_port=8002, receiver_port=8003, broker_url="redis://127.0.0.1:8004/0")


def part_of(folder: Path, name: str, script: str, **more: Any) -> Part:
    return Part(name, lambda: os.execvp("sh", ("sh", "-c", script)), folder / f"{name}.log", **more)


def runner_of(report: Callable[[str], object] = print) -> Runner:
    return Runner(report, StopRequest())


def test_start_returns_when_every_part_is_ready(tmp_path):
    up = tmp_path / "up"
    slow = part_of(tmp_path, "slow", f"sleep 0.2; touch {up}; sleep 60", missing=lambda: "" if up.exists() else "no up")
    quick = part_of(tmp_path, "quick", "sleep 60")
    runner = runner_of()

    runner.start(slow, quick)

    assert up.exists() and runner.pids == {"slow": slow.pid, "quick": quick.pid}
    runner.stop()


def test_part_that_ends_at_start_is_named_with_its_log_and_last_lines(tmp_path):
    (tmp_path / "web.log").write_text("old story\n")
    runner = runner_of()

    with pytest.raises(DemoError, match=r"(?s)^web: ended with exit code 3 at start; .*web\.log.*boom") as failure:
        runner.start(part_of(tmp_path, "web", "echo boom; exit 3", missing=lambda: "no answer"))

    assert str(tmp_path / "web.log") in str(failure.value) and "old story" not in str(failure.value)


def test_part_that_is_not_ready_in_time_is_named_with_what_it_lacks(tmp_path):
    part = part_of(tmp_path, "pools", "sleep 60", missing=lambda: "slow is not up", ready_timeout_s=0.1)
    runner = runner_of()

    with pytest.raises(DemoError, match=r"pools: was not ready within 0.1 s \(slow is not up\)"):
        runner.start(part)

    runner.stop()
    assert part.pid is None


def test_asking_to_stop_ends_a_start_that_waits(tmp_path):
    part = part_of(tmp_path, "web", "sleep 60", missing=lambda: "no answer")
    stop = StopRequest()
    stop.set()
    runner = Runner(print, stop)

    with pytest.raises(Stopped):
        runner.start(part)

    runner.stop()
    assert part.pid is None


def test_part_that_dies_is_started_again_and_both_are_said(tmp_path):
    said: list[str] = []
    part = part_of(tmp_path, "web", "sleep 60")
    runner = runner_of(said.append)
    runner.start(part)
    first = part.pid
    assert first is not None

    os.kill(first, signal.SIGKILL)

    wait_for(lambda: bool(runner.restart_dead() and len(said) == 2))
    assert part.pid not in (None, first)
    assert said[0].startswith("web ended with SIGKILL; starting it again now")
    assert said[1] == "web is back"
    runner.stop()


def test_parts_end_with_a_runner_that_was_killed(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from demo.runner import Part, Runner, StopRequest\n"
        "part = Part('web', lambda: time.sleep(600), Path(sys.argv[1]) / 'web.log')\n"
        "Runner(print, StopRequest()).start(part); print(part.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=BASE_DIR
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert is_alive(pid)

        owner.kill()

    wait_for(lambda: not is_alive(pid))


def test_part_that_dies_again_and_again_is_started_at_growing_intervals(tmp_path):
    said: list[str] = []
    part = part_of(tmp_path, "web", f"test -e {tmp_path}/once && exit 1; touch {tmp_path}/once; sleep 60")
    runner = runner_of(said.append)
    runner.start(part)
    wait_for((tmp_path / "once").exists)
    part.kill()

    wait_for(lambda: bool(runner.restart_dead() and "starting it again in 1 s" in said[-1]))
    assert not runner.restart_dead()
    runner.stop()


def test_parts_stop_last_started_first(tmp_path):
    ends = tmp_path / "ends"
    on_term = "trap 'echo {name} >> {ends}; exit' TERM; echo up; while :; do sleep 0.01; done"
    broker, pools, web = (
        part_of(
            tmp_path, name, on_term.format(name=name, ends=ends),
            missing=lambda name=name: "" if (tmp_path / f"{name}.log").stat().st_size else "starting",
        )
        for name in ("broker", "pools", "web")
    )  # fmt: skip
    runner = runner_of()
    runner.start(broker)
    runner.start(pools, web)

    runner.stop()

    assert (ends.read_text().split(), runner.pids) == (["web", "pools", "broker"], {})


def test_part_that_ignores_the_request_to_stop_is_killed_and_said(tmp_path):
    said: list[str] = []
    log = tmp_path / "deaf.log"
    part = part_of(
        tmp_path, "deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done", stop_timeout_s=0.2,
        missing=lambda: "" if log.stat().st_size else "starting",
    )  # fmt: skip
    runner = runner_of(said.append)
    runner.start(part)

    runner.stop()

    assert part.pid is None
    assert said == [f"deaf did not end within 0.2 s: killed; its log is {log}"]


def test_part_has_the_exit_code_and_the_log_of_its_job(tmp_path):
    def refuse() -> None:
        os.write(1, b"refused\n")
        sys.exit(78)

    parts = [Part("pools", refuse, tmp_path / "pools.log"), Part("history", lambda: None, tmp_path / "history.log")]
    for part in parts:
        part.start()

    wait_for(lambda: all(part.exit_code() is not None for part in parts))

    assert [part.exit_code() for part in parts] == [78, 0]
    assert ((tmp_path / "pools.log").read_text(), (tmp_path / "history.log").read_text()) == ("refused\n", "")


def line(event: str, job_id: str = "7", **fields: object) -> str:
    """Return a line as ``middleware.logs`` writes it for a terminal."""
    shown = " ".join(f"{name}={value}" for name, value in {"actor": "greet", **fields, "job_id": job_id}.items())
    return f"{AT} [info     ] {event:30} [switchyard.jobs] {shown} queue=default\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    log = tmp_path / "pools.log"
    log.write_text(line("succeeded", "of a run before"))
    return log


def news(log: Path, *texts: str, sample: str = "") -> list[str]:
    """Return what the demo says of lines that are added."""
    said: list[str] = []
    lines = JobLines(log, said.append)
    with log.open("a") as file:
        file.writelines(texts)
    lines.read([sample])
    return said


def test_each_end_of_an_attempt_is_shown_but_for_jobs_of_the_sample_and_other_lines(log):
    other = f"{AT} [info     ] counted 3 of 4                 [apps.loyalty] actor=greet job_id=9\n"
    retried = line("retried", "7", duration_ms=3, error="\"'missing'\"", raised="KeyError")

    shown = news(log, retried, line("succeeded", "7", duration_ms=1960), line("dead", "8", reason="permanent"))

    assert shown == [
        "greet 7: retried in 3 ms (KeyError missing)",
        "greet 7: succeeded in 1,960 ms",
        "greet 8: dead (permanent)",
    ]
    assert news(log, line("succeeded", "7"), other, "a print()\n", sample="7") == []


def test_a_parked_job_a_reload_and_a_refusal_are_shown(log):
    shown = news(
        log,
        f"{AT} [warning  ] parked until a worker knows it (logged once a minute) [m.parking] actor=x job_id=1\n",
        f"{AT} [error    ] reload: the pools ended with 1; they start again when a file changes [switchyard.workers]\n",
        "switchyard: refused to start: actor hello: max_retries is '3'; write a number (a/actors.py:3)\n",
    )

    assert shown == [
        "x 1: parked until a worker knows it",
        "reload: the pools ended with 1; they start again when a file changes",
        "switchyard: refused to start: actor hello: max_retries is '3'; write a number (a/actors.py:3)",
    ]


def test_a_burst_is_summed_up_with_the_name_of_the_log(log):
    shown = news(log, *(line("succeeded", str(number)) for number in range(MOST_LINES + 5)))

    assert (len(shown), shown[-1]) == (MOST_LINES + 1, f"and 5 more, see {log}")


def test_a_log_that_is_missing_or_made_anew_is_read_from_its_start(log):
    said: list[str] = []
    lines = JobLines(log, said.append)
    log.unlink()
    lines.read()
    log.write_text(line("succeeded", "3")[:-1])
    lines.read()
    with log.open("a") as file:
        file.write("\n")
    lines.read()

    assert said == ["greet 3: succeeded"]


def test_children_reach_exactly_the_demos_own_parts(tmp_path):
    identity = load_identity(tmp_path / "none")

    config = load_config(settings_for(StateFolder(tmp_path), identity, ADDRESSES))

    assert config.allowed_private_addresses == {("127.0.0.1", 8003)}
    assert (config.library.broker_url, config.smtp_url) == (ADDRESSES.broker_url, "smtp://127.0.0.1:8002")
    assert config.library.public_url == "http://127.0.0.1:8001"
    assert (config.payment_secret, config.secret_key) == (identity.payment_secret, identity.django_secret_key)
    assert config.library.alert_urls == ("log:", "mailto:operations@switchyard.example")
    assert config.database_url == f"sqlite:///{tmp_path}/db.sqlite3"
    assert (config.storage.folder, config.library.state_dir) == (f"{tmp_path}/media", tmp_path)


def test_a_shell_takes_the_settings_over(tmp_path):
    file = tmp_path / "environment"
    write_private_text(file, as_exports({"A": "it's $HOME", "B": "log: mailto:x"}))

    ran = subprocess.run(["sh", "-c", f'. {file}; printf \'%s|%s\' "$A" "$B"'], capture_output=True, text=True)

    assert (ran.stdout, file.stat().st_mode & 0o777) == ("it's $HOME|log: mailto:x", 0o600)


def test_settings_of_another_yard_do_not_leak_in():
    base = {"PATH": "/bin", "DJANGO_DEBUG": "0", "SWITCHYARD_METRICS_TOKEN": "x", "DATABASE_URL": "postgres://other"}

    assert without_settings(base) == {"PATH": "/bin"}


def test_retries_are_hurried_here_and_not_in_the_projects_settings():
    code = "from demo.settings import SWITCHYARD as a; from project.settings import SWITCHYARD as b; "
    code += "print(a.topology.retry_speed, b.topology.retry_speed)"

    done = subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(addresses.RETRY_SPEED), "1"]


def test_another_terminal_needs_no_more_than_the_state_folder(tmp_path):
    state = StateFolder(tmp_path)

    config = load_config({"SWITCHYARD_STATE_DIR": str(tmp_path)})

    assert config.library.broker_url == f"unix://{state.broker_socket}"
    assert config.database_url == f"sqlite:///{state.database}"
    assert config.storage.folder == str(state.media)


def test_next_free_port_follows_one_that_is_taken_and_a_server_that_chooses_itself_gets_zero_for_it():
    with addresses.listen(0) as taken:
        first = addresses.port_of(taken)

        assert addresses.free_again(first) == 0
        with addresses.listen_near(first) as found:
            assert first < addresses.port_of(found) <= first + addresses.NEXT_PORTS
    assert (addresses.free_again(first), addresses.free_again(0)) == (first, 0)


def test_port_of_last_time_is_taken_again_where_it_is_free():
    with addresses.listen(0) as last:
        port = addresses.port_of(last)
    with addresses.listen_near(port, next_ports=1) as again, addresses.listen_near(port, next_ports=1) as other:
        assert addresses.port_of(again) == port
        assert addresses.port_of(other) != port


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


def test_every_reset_must_have_been_mailed_exactly_once(world):
    for number in range(5):
        world.job(f"job-{number}")
        world.mail("ada@example.com", f"<job-{number}.password_reset@switchyard.example>")
    assert work.resets(world.order) == Seen("5 succeeded, 5 mails", as_expected=True)

    world.mail("ada@example.com", "<job-0.password_reset@switchyard.example>")

    assert not work.resets(world.order).as_expected


def test_cancelled_job_must_have_sent_nothing(world):
    world.job("job", "cancelled")
    assert work.cancelled(world.order).as_expected

    world.mail("never@readers.example", "<job.newsletter@switchyard.example>")

    assert not work.cancelled(world.order).as_expected


def test_payment_that_was_sent_twice_must_be_booked_once(world):
    world.order.statuses = [202, 202]
    world.rows["shop.Payment"] = 1
    assert work.payments(world.order, "pay", [202, 202], 1) == Seen("202, 202, booked 1 times", as_expected=True)

    world.rows["shop.Payment"] = 2

    assert not work.payments(world.order, "pay", [202, 202], 1).as_expected


def test_healthy_endpoint_must_get_each_delivery_once_and_signed(world):
    world.job("job")
    world.arrive("/healthy", 200, signed=False)
    assert not work.healthy(world.order).as_expected

    world.requests.clear()
    world.arrive("/healthy", 200)
    assert work.healthy(world.order).as_expected
    world.arrive("/healthy", 200)

    assert not work.healthy(world.order).as_expected


def test_broken_endpoint_must_end_in_one_dead_letter_and_one_alert(world):
    world.job("job", "dead", reason="exhausted", attempts=6)
    world.rows["switchyard_dead_letters.DeadLetter"] = 1
    for _ in range(6):
        world.arrive("/broken", 500)
    assert not work.broken(world.order).as_expected

    world.mail("operations@switchyard.example", "<alert-1-0@switchyard>", "deliver_webhook gave up: DeliveryFailed")
    assert work.broken(world.order).as_expected
    world.mail("operations@switchyard.example", "<alert-2-0@switchyard>", "deliver_webhook gave up: DeliveryFailed")

    assert not work.broken(world.order).as_expected


def test_ten_mails_go_to_one_reader_and_the_limit_holds_the_others(world):
    for number in range(10):
        world.job(f"job-{number}-")
        world.mail("ada@readers.example", f"<job-{number}-.newsletter@switchyard.example>")
    world.job("held", "scheduled", reason="delay")
    assert not work.limited(world.order).as_expected

    world.job("held", "scheduled", reason="rate_limit")

    assert work.limited(world.order).as_expected


def test_a_reconciliation_must_have_waited_for_the_lock_of_its_month(world):
    times = {"enqueued_at": "2026-11-28T12:00:00+00:00", "started_at": "2026-11-28T12:00:00.1+00:00"}
    world.job("job", result=dict.fromkeys(work.COUNTS, 1), **times)
    assert not work.reconciliation(world.order).as_expected

    world.job("job", result=dict.fromkeys(work.COUNTS, 1), **times | {"started_at": "2026-11-28T12:00:02.1+00:00"})

    assert work.reconciliation(world.order).as_expected


def test_the_other_customer_must_not_be_served_last(world, monkeypatch):
    monkeypatch.setattr(work, "cores_here", lambda: 2)
    for second in range(12):
        world.job(f"many-{second}", started_at=f"12:00:{second:02}")
    world.job("one", enqueued_at="12:00:01", started_at="12:00:06")
    assert work.in_turn(world.order).as_expected

    world.job("one", enqueued_at="12:00:01", started_at="12:00:12")

    assert not work.in_turn(world.order).as_expected


def test_before_anything_was_sent_nothing_but_what_needs_no_work_is_as_expected(world):
    assert not [row.what for row in WORK if row.look(world.order).as_expected]


def never() -> bool:
    return False


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    state = StateFolder(tmp_path / "state")
    state.make()
    return state


def test_second_demo_on_a_folder_is_told_who_runs_the_first_and_how_to_start_beside_it(state):
    first = StateLock(state)
    first.acquire(is_stopping=never)
    first.announce("http://127.0.0.1:8000/")

    with pytest.raises(DemoError) as refusal:
        StateLock(state).acquire(is_stopping=never)

    said = str(refusal.value)
    assert str(state.root) in said and f"process {os.getpid()}, http://127.0.0.1:8000/" in said
    assert "bin/demo --state DIR" in said
    first.release()


def test_processes_that_a_killed_demo_left_are_waited_for(state):
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


def test_waiting_for_a_folder_ends_when_somebody_asks_to_stop(state):
    first = StateLock(state)
    first.acquire(is_stopping=never)
    write_private(state.owner, {"pid": 0})

    with pytest.raises(Stopped):
        StateLock(state).acquire(is_stopping=lambda: True)

    first.release()


def test_folder_and_its_secrets_are_for_their_owner_only(state):
    load_identity(state.identity).save(state.identity)

    assert stat.S_IMODE(state.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(state.identity.stat().st_mode) == 0o600


def test_what_is_ours_in_a_folder_that_others_can_look_into_is_closed_to_them(tmp_path):
    state = StateFolder(tmp_path / "state")
    state.root.mkdir(mode=0o755)
    state.mailbox.mkdir(mode=0o755)
    state.database.touch(mode=0o644)

    state.make()

    ours = (state.logs, state.metrics, state.media, state.mailbox, state.database, state.lock)
    assert [path.name for path in ours if path.stat().st_mode & 0o077] == []


def test_identity_stays_the_same_over_restarts(tmp_path):
    path = tmp_path / "identity.json"
    first = replace(load_identity(path), broker_port=1234, smtp_port=2345, receiver_port=3456)
    first.save(path)

    assert load_identity(path) == first
    assert len({first.django_secret_key, first.payment_secret, first.admin_password}) == 3


@pytest.mark.parametrize("content", ["", "[]", "{", '{"django_secret_key": "", "broker_port": "1"}'])
def test_identity_that_cannot_be_used_is_made_anew(tmp_path, content):
    path = tmp_path / "identity.json"
    path.write_text(content)

    made = load_identity(path)

    assert len(made.django_secret_key) >= 32
    assert made.broker_port == 0


def test_private_file_is_replaced_whole(tmp_path):
    path = tmp_path / "secrets.json"
    write_private(path, {"a": 1})

    with pytest.raises(TypeError):
        write_private(path, {"a": object()})

    assert (read_private(path), [entry.name for entry in tmp_path.iterdir()]) == ({"a": 1}, ["secrets.json"])
