"""A metrics folder that is removed while the pool runs: back by itself, and the gap is counted."""

from __future__ import annotations

import re
import shutil
import urllib.request
from pathlib import Path

from switchyard.workers.metrics import GAPS_FILE, gaps_of
from tests.integration.workers.conftest import Bench
from tests.waiting import wait_for

COUNTED = re.compile(r'switchyard_messages_total\{actor="urgent_job",outcome="succeeded",queue="urgent"\} (\S+)')
GAPS = re.compile(r'switchyard_metrics_gaps_total\{pool="urgent"\} (\S+)')


def test_metrics_come_back_after_their_folder_or_its_files_were_removed(bench: Bench) -> None:
    bench.up("runpool", "urgent")
    folder = bench.folder / "metrics" / "urgent"

    def read(pattern: re.Pattern[str]) -> float:
        report = wait_for(lambda: bench.report("urgent"))
        with urllib.request.urlopen(f"http://127.0.0.1:{report.metrics_port}/metrics", timeout=30) as answer:
            found = pattern.search(answer.read().decode())
        return float(found.group(1)) if found else 0.0

    def work() -> bool:
        token = bench.send("urgent")
        return wait_for(lambda: bench.ended(token))

    work()
    wait_for(lambda: read(COUNTED) >= 1)
    for gap, how in enumerate(("the folder", "the folder", "its files", "its files"), start=1):
        if how == "the folder":
            shutil.rmtree(folder.parent)
        else:
            for path in folder.iterdir():
                path.unlink()

        wait_for(lambda gap=gap: gaps_of(folder) == gap)
        wait_for(lambda: work() and read(COUNTED) >= 1)

        assert read(GAPS) == gap
    assert "metrics folder was removed while the pool runs" in bench.log()


def test_a_count_of_gaps_that_is_being_made_is_none_yet(tmp_path: Path) -> None:
    assert gaps_of(tmp_path) == 0
    (tmp_path / GAPS_FILE).touch()
    assert gaps_of(tmp_path) == 0
