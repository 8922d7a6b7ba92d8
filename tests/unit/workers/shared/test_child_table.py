"""Sharing of a supervisor with its children: the table that a child fills in, and the fork with its output."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from switchyard.workers import preflight
from switchyard.workers.shared import child_table
from switchyard.workers.shared.child_table import KEPT, ChildRow, ChildState, ChildTable


@pytest.fixture
def row() -> ChildRow:
    """A row for two slots, of a child that has its leases."""
    found = ChildTable.create(1, 2).rows[0]
    found.lease(time.monotonic() + 60)
    return found


def start(row: ChildRow, id_: bytes = b"a", token: int = 1, *, lane: int = 0, limit_ns: int = 0) -> int:
    return row.start(lane, id_, b"%d" % token, limit_ns)


def work_off(row: ChildRow, token: int, *, lane: int = 0) -> None:
    row.end(start(row, token=token, lane=lane), worked_off=True)


def test_a_forked_child_writes_and_its_parent_reads():
    table = ChildTable.create(3, 2)
    pid = os.fork()
    if pid == 0:
        table.rows[1].lease(time.monotonic() + 60)
        table.rows[1].ready = True
        start(table.rows[1], token=7, limit_ns=5_000)
        os._exit(0)

    os.waitpid(pid, 0)

    state = table.rows[1].read()
    assert (state.ready, state.taken, state.done, state.busy) == (True, 1, 0, 1)
    [running] = table.rows[1].running()
    assert (running.id, running.token, running.lane, running.limit_ns) == (b"a", 7, 0, 5_000)
    assert running.over_at_ns == running.start_ns + 5_000
    assert table.rows[0].read() == table.rows[2].read() == ChildState(False, 0, 0, 0, 0)


def test_a_table_is_found_again_by_its_descriptor():
    table = ChildTable.create(2, 4)

    row = ChildTable(table.fd, 2, 4).rows[1]
    row.lease(time.monotonic() + 60)
    work_off(row, 3, lane=1)
    row.confirm_flush(row.last_end())

    assert [(ran.lane, ran.id, ran.token) for ran in table.rows[1].finished()] == [(1, b"a", 3)]


def test_a_row_is_cleared_for_the_next_child(row):
    row.ready = True
    row.full = True
    row.retired = True
    row.log("said\n")
    start(row)
    work_off(row, 2)

    row.clear()

    assert row.read() == ChildState(False, 0, 0, 0, 0)
    assert (row.running(), row.finished(), row.logged()) == ([], [], [])
    assert (row.leased, row.full, row.retired) == (False, False, False)


def test_a_child_works_while_it_is_up_and_has_its_leases_without_which_nothing_is_put_down(row):
    loading = row.read().works
    row.ready = True
    up = row.read().works
    row.lease(time.monotonic() - 1)

    assert (loading, up, row.read().works) == (False, True, False)
    assert row.start(0, b"a", b"1", 0) is None
    assert (row.running(), row.read().taken) == ([], 0)


def test_the_last_that_were_worked_off_are_remembered(row):
    for token in range(KEPT + 5):
        work_off(row, token)
    row.confirm_flush(row.last_end())

    assert {found.token for found in row.finished()} >= set(range(5, KEPT + 5))


def test_what_runs_for_long_keeps_its_slot_whatever_its_id_and_token_while_others_are_worked_off(row):
    start(row, b"x" * 200, 2**63 - 1, limit_ns=60)
    for token in range(3 * KEPT):
        work_off(row, token)

    assert [(ran.id, ran.token) for ran in row.running()] == [(b"x" * 200, 2**63 - 1)]
    assert (row.read().taken, row.read().done, row.read().busy) == (3 * KEPT + 1, 3 * KEPT, 1)


def test_what_went_elsewhere_is_not_finished(row):
    row.end(start(row), worked_off=False)
    row.confirm_flush(row.last_end())

    assert (row.running(), row.finished(), row.read().taken, row.read().done) == ([], [], 1, 1)


def test_what_is_not_written_down_of_a_message_keeps_it_from_being_finished(row):
    work_off(row, 1)
    last_end = row.last_end()
    work_off(row, 2)
    row.confirm_flush(last_end)
    work_off(row, 3)

    assert [ran.token for ran in row.finished()] == [1]
    assert [ran.token for ran in row.ended_unwritten(1)] == [3]
    assert [ran.token for ran in row.ended_unwritten(9)] == [3, 2]


def test_written_is_what_the_quickest_flush_has_written(row):
    work_off(row, 1)
    slow = row.last_end()
    work_off(row, 2)
    row.confirm_flush(row.last_end())
    row.confirm_flush(slow)

    assert {found.token for found in row.finished()} == {1, 2}


@pytest.mark.parametrize("cleared", [24, 64, 240])
def test_what_died_while_an_entry_was_cleared_to_be_filled_anew_is_left_out(row, cleared):
    """Not all of a entry is cleared at once: the state may stand longer than the rest."""
    slot = start(row)
    row.end(slot, worked_off=True)
    work_off(row, 2)
    row.confirm_flush(row.last_end())
    at = (slot - child_table.STATE) * child_table.CELL_BYTES

    row._memory[at : at + cleared] = bytes(cleared)

    assert [found.token for found in row.finished()] == [2]


def test_a_message_that_is_asked_to_stop_is_no_other_that_gets_its_place(row):
    slot = start(row)
    [ran] = row.running()

    row.request_stop(ran)
    asked = row.is_to_stop(slot)
    row.end(slot, worked_off=True)
    row.request_stop(ran)
    others = [start(row, token=token) for token in range(2, KEPT + 4)]

    assert asked and slot in others
    assert not any(row.is_to_stop(other) for other in others)


@pytest.mark.parametrize("lines", [3, 40, 400])
def test_a_row_keeps_the_last_lines_that_its_child_logged(row, lines):
    said = [f"line {number} " + "x" * (number % 90) for number in range(lines)]

    for line in said:
        row.log(f"{line}\n")

    kept = row.logged()
    assert kept == said[-len(kept) :]
    assert len(kept) >= min(lines, 30)


def test_what_has_lost_its_beginning_is_no_line(row):
    row.log("password=" + "x" * 5_000 + "\n")

    assert row.logged() == []
    row.log("after\n")
    assert row.logged() == ["after"]


def test_progress_is_the_first_sign_of_life_after_a_message_started_or_ended(row):
    row.beat()
    idle_ns = row.read().progress_ns
    slot = start(row)
    row.beat()
    started_ns = row.read().progress_ns
    row.beat()
    still_ns = row.read().progress_ns
    row.end(slot, worked_off=True)
    row.beat()

    assert idle_ns == 0
    assert 0 < started_ns == still_ns < row.read().progress_ns == row.read().beat_ns


def test_messages_are_counted_by_several_threads_at_once():
    row = ChildTable.create(1, 8).rows[0]
    row.lease(time.monotonic() + 60)

    def run() -> None:
        for token in range(2_000):
            work_off(row, token)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (row.read().taken, row.read().done, row.read().busy) == (16_000, 16_000, 0)


def test_an_entry_is_never_seen_half_written(row, monkeypatch):
    start(row, b"before", limit_ns=60_000_000_000)
    layout = child_table._ENTRY

    class Torn:
        """Reads the first time what is there in the middle of a write, which then goes on."""

        size = layout.size
        torn = False

        def unpack_from(self, memory: memoryview, at: int) -> tuple[object, ...]:
            if self.torn:
                return layout.unpack_from(memory, at)
            self.torn = True
            _, _, _, _, _, _, _, state = layout.unpack_from(memory, at)
            layout.pack_into(memory, at, 0, 3_000_000_000, b"2", 0, 5, b"af", 0, state)
            seen = layout.unpack_from(memory, at)
            layout.pack_into(memory, at, 9, 3_000_000_000, b"2", 0, 5, b"after", 0, state + 2 * child_table.EVENT)
            return seen

    monkeypatch.setattr(child_table, "_ENTRY", Torn())

    assert (row.running(), [(ran.id, ran.start_ns) for ran in row.running()]) == ([], [(b"after", 9)])


def test_what_a_child_holds_is_read_by_its_supervisor_until_the_row_is_cleared():
    table = ChildTable.create(2, 2)
    child = ChildTable(os.dup(table.fd), 2, 2)
    child.rows[0].log("x" * 5_000)
    child.rows[0].held_marks.hold(7)

    assert [row.held_marks.read() for row in table.rows] == [[7], []]
    assert set("".join(table.rows[0].logged())) <= {"x"}
    table.rows[0].clear()
    assert table.rows[0].held_marks.read() == []


@pytest.mark.parametrize("act", ["start", "full", "stuck", "ill"])
def test_a_child_that_is_not_looked_at_signals_its_next_act_once(row, monkeypatch, act):
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *which: signals.append(which))
    start(row)
    row.doze()
    assert (row.dozes, signals) == (True, [])

    for _ in range(2):
        start(row) if act == "start" else setattr(row, act, True)

    assert (row.dozes, signals) == (False, [(os.getpid(), signal.SIGCHLD)])


FORKS = """
import os, sys
from switchyard.workers.shared.fork import fork

def work():
    {spoil}
    return 5

_, status = os.waitpid(fork(work, title="test"), 0)
os.write(2, f"SAID ended with {{os.waitstatus_to_exitcode(status)}}".encode())
"""


def said_of(spoil: str) -> str:
    """Return what the parent of a child says, where it alone says it."""
    environment = {"DJANGO_SETTINGS_MODULE": "project.settings"}
    command = [sys.executable, "-c", FORKS.format(spoil=spoil)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    return run.stderr.partition("SAID ")[2]


@pytest.mark.parametrize(
    "spoil",
    [
        "sys.stdout.close(); sys.stderr.close()",
        "os.close(1); print('into nothing')",
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1); print('nobody reads')",
        "read, write = os.pipe(); os.set_blocking(write, False); os.write(write, bytes(1 << 20)); "
        "os.set_blocking(write, True); os.dup2(write, 1); print('full')",
        "sys.stdout = None",
        "sys.stdout = object()",
    ],
)
def test_a_child_ends_with_its_code_whatever_its_output_is(spoil):
    assert said_of(spoil) == "ended with 5"


@pytest.mark.parametrize(("raised", "code"), [("KeyboardInterrupt", 70), ("SystemExit(4)", 4), ("ValueError", 70)])
def test_an_exception_never_leaves_a_child_into_the_code_of_its_parent(raised, code):
    assert said_of(f"raise {raised}") == f"ended with {code}"


# A socket, as below systemd, cannot be opened again without blocking.
@pytest.mark.parametrize("opens", [os.pipe, os.openpty, lambda: [end.detach() for end in socket.socketpair()]])
def test_an_output_without_room_drops_lines_and_says_so(opens, monkeypatch):
    monkeypatch.setattr(preflight, "WAIT_S", 0.01)
    reader, writer = opens()
    stream, taken = preflight.PatientOutput(writer), b""
    assert {stream.write(b"x" * 1_000 + b"\n") for _ in range(300)} == {1_001}

    while b"y" not in taken:
        taken += os.read(reader, 1 << 20)
        stream.write(b"y\n")

    assert b"lines dropped]" in taken
    os.close(reader)
    assert stream.write(b"z\n") == 2
    os.close(writer)
