"""Counts of metrics files reach the facts once, whatever is answered, folded or lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.stores.pool_reports import ReportedChild
from switchyard.broker.stores.yard_facts import DEAD, MOST_OWNERS, RETRIED, RUN_MS, RUNS, SUCCEEDED, Counts
from switchyard.middleware.metrics import MOST_HOSTS, OWNER_ATTEMPTS, OWNER_SECONDS
from switchyard.workers.metrics import fold
from switchyard.workers.supervisor import report
from switchyard.workers.supervisor.report import RUN, CountFlush, WorkDone


class Store:
    """Facts that add each flush once; ``answers``: whether the next answer arrives."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self.last, self.answers = 0, True

    def add(self, member: str, flush: int, counts: Mapping[str, Counts]) -> bool:
        if flush > self.last:
            self.last = flush
            self.counts.update({(name, code): n for name, of in counts.items() for code, n in of.items()})
        if not self.answers:
            raise BrokerUnavailable("add", "no answer")
        return True


class Child:
    """A process's metrics files, in which attempts of one actor are counted."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.folder, self.pid = folder, pid

    def count(self, attempts: int, *, actor: str = "mail") -> None:
        where = ["queue", "actor"]
        names = {
            "counter": [mmap_key("switchyard_messages", "switchyard_messages_total", [*where, "outcome"],
                                 ["default", actor, "succeeded"], "")],
            "histogram": [mmap_key(RUN, f"{RUN}_bucket", [*where, "le"], ["default", actor, "0.08"], ""),
                          mmap_key(RUN, f"{RUN}_sum", where, ["default", actor], "")],
        }  # fmt: skip
        for kind, keys in names.items():
            values = MmapedDict(str(self.folder / f"{kind}_{self.pid}.db"))
            for key in keys:
                grown = attempts * 0.06 if "_sum" in key else attempts
                values.write_value(key, values.read_value(key)[0] + grown, 0.0)
            values.close()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def flush(tmp_path: Path, store: Store) -> CountFlush:
    return CountFlush(tmp_path, pool="p", release="1.0", member="p:host:1", store=store)  # type: ignore[arg-type]


def test_attempts_are_counted_for_each_subject_with_their_class_and_time(
    tmp_path: Path, store: Store, flush: CountFlush
) -> None:
    Child(tmp_path, 7).count(3)
    Child(tmp_path, 8).count(2)
    flush.flush()
    Child(tmp_path, 8).count(1)

    assert flush.flush()

    for subject in ("q:default", "a:mail", "p:p", "r:1.0", "y:"):
        assert store.counts[subject, SUCCEEDED] == store.counts[subject, RUNS + 4] == 6
        assert store.counts[subject, RUN_MS] in (358, 359, 360)  # whole ms of each file


def test_a_flush_without_an_answer_is_repeated_and_what_came_since_follows(
    tmp_path: Path, store: Store, flush: CountFlush
) -> None:
    child = Child(tmp_path, 7)
    child.count(3)
    store.answers = False
    assert not flush.flush()
    child.count(4)
    assert not flush.flush()
    store.answers = True

    assert flush.flush()

    assert store.counts["a:mail", SUCCEEDED] == 7


def test_files_of_an_ended_child_count_once_when_they_are_folded(
    tmp_path: Path, store: Store, flush: CountFlush
) -> None:
    Child(tmp_path, 7).count(3)
    flush.flush()
    Child(tmp_path, 7).count(2, actor="other")
    fold(tmp_path, 7)
    Child(tmp_path, 9).count(1)

    flush.flush()

    assert (store.counts["a:mail", SUCCEEDED], store.counts["a:other", SUCCEEDED]) == (4, 2)


def test_a_folder_that_is_emptied_takes_nothing_away(tmp_path: Path, store: Store, flush: CountFlush) -> None:
    Child(tmp_path, 7).count(3)
    flush.flush()
    for path in tmp_path.glob("*.db"):
        path.unlink()
    flush.flush()
    Child(tmp_path, 9).count(2)

    flush.flush()

    assert store.counts["a:mail", SUCCEEDED] == 5


def test_a_broken_file_stops_no_supervisor(tmp_path: Path, store: Store, flush: CountFlush) -> None:
    (tmp_path / "counter_3.db").write_bytes(b"")
    (tmp_path / "counter_4.db").write_bytes(b"\x10\0\0")
    child = Child(tmp_path, 7)
    child.count(1)
    flush.flush()
    whole = (tmp_path / "counter_7.db").read_bytes()
    for broken in (whole[:40], whole[:8] + b"\xff" * 200, whole.replace(b"switchyard", b"\xff" * 10)):
        (tmp_path / "counter_7.db").write_bytes(broken)
        assert flush.flush()
    (tmp_path / "counter_7.db").write_bytes(whole)
    child.count(1)

    assert flush.flush()
    assert store.counts["a:mail", SUCCEEDED] == 2


def test_hosts_are_counted_up_to_a_number_however_many_each_child_names(
    tmp_path: Path, store: Store, flush: CountFlush
) -> None:
    labels = ["dependency", "host", "outcome"]
    family = "switchyard_dependency_host_calls"
    for pid in (7, 8):
        values = MmapedDict(str(tmp_path / f"counter_{pid}.db"))
        for number in range(MOST_HOSTS):
            host = f"{number}.of-{pid}.example"
            values.write_value(mmap_key(family, f"{family}_total", labels, ["web", host, "failed"], ""), 2, 0.0)
        values.close()

    assert flush.flush()

    assert {code for _, code in store.counts} == {RETRIED}
    assert len(store.counts) == MOST_HOSTS + 1
    assert store.counts["d:web other", RETRIED] == 2 * MOST_HOSTS
    assert all(count == 2 for (subject, _), count in store.counts.items() if subject != "d:web other")


def test_the_owners_that_ran_longest_are_counted_for_themselves_and_all_others_together(
    tmp_path: Path, store: Store, flush: CountFlush
) -> None:
    values = MmapedDict(str(tmp_path / "counter_7.db"))
    for number in range(MOST_OWNERS + 3):
        owner = f"user:{number:03}"
        attempts = mmap_key(OWNER_ATTEMPTS, f"{OWNER_ATTEMPTS}_total", ["outcome", "owner"], ["dead", owner], "")
        seconds = mmap_key(OWNER_SECONDS, f"{OWNER_SECONDS}_total", ["owner"], [owner], "")
        values.write_value(attempts, 2, 0.0)
        values.write_value(seconds, 1 + number, 0.0)
    values.close()

    assert flush.flush()

    assert {subject[:2] for subject, _ in store.counts} == {"o:"}
    assert store.counts["o:user:003", RUN_MS] == 4_000 and store.counts["o:user:003", DEAD] == 2
    assert store.counts["o:other", RUN_MS] == 1_000 + 2_000 + 3_000
    assert sum(count for (_, code), count in store.counts.items() if code == DEAD) == 2 * (MOST_OWNERS + 3)


def child(pid: int, *, busy: int, done: int) -> ReportedChild:
    return {"pid": pid, "busy": busy, "done": done}


def test_replaced_child_takes_nothing_from_the_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(report.time, "monotonic", lambda: now_s)
    work = WorkDone()

    work.note([child(1, busy=2, done=5)])
    now_s = 102.0
    work.note([child(1, busy=2, done=9), child(2, busy=1, done=1)])
    now_s = 104.0
    work.note([child(3, busy=1, done=2)])

    assert work.done == 12
    assert work.busy_s == pytest.approx(2.5 * 2 + 2 * 2)
