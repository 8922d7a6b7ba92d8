"""The file in which every task leaves its trace."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import records


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("BENCH_RECORDS", str(tmp_path / "records"))
    monkeypatch.setenv("BENCH_WORKER", "3")
    yield tmp_path / "records"
    records._file.cache_clear()
    records._worker.cache_clear()


def test_a_task_leaves_one_record_of_24_bytes(path: Path) -> None:
    before_s = time.monotonic()

    records.run({"sent_s": 1.5, "number": 7, "work_s": 0.0})

    assert path.stat().st_size == 24
    (record,) = records.read(path)
    assert (record.sent_s, record.worker, record.number) == (1.5, 3, 7)
    assert before_s <= record.started_s <= time.monotonic()


def test_what_was_sent_through_json_is_read_back(path: Path) -> None:
    task = json.loads(json.dumps(records.payload(5, later_s=60)))

    records.run(task)

    (record,) = records.read(path)
    assert record.number == 5
    assert -60_000 <= record.waited_ms < -59_000


def test_probes_and_half_written_records_are_not_read(path: Path) -> None:
    for number in (1, records.PROBE, 2):
        records.write({"sent_s": 0.0, "number": number})
    with path.open("ab") as file:
        file.write(b"\0" * 23)

    assert [record.number for record in records.read(path)] == [1, 2]
