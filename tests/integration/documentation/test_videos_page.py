"""The guide's conversion by the real FFmpeg: progress, a limit, a killed worker, and a target that is always whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.workers.checks import check_yard
from tests.conftest import RunWorker
from tests.factories.yards import small_yard
from tests.integration.documentation.shown import blocks, run_block, shown_app
from tests.processes import is_alive, titles_below, wait_for_end
from tests.waiting import wait_for

PAGE = "convert-videos"
OLD = b"the video before"


@pytest.fixture
def ffmpeg() -> str:
    """The program, from ``bin/test``."""
    found = shutil.which("ffmpeg")
    assert found, "ffmpeg is not installed; run: sudo apt install ffmpeg (or bin/test --without ffmpeg)"
    return found


@pytest.fixture
def shown(yard_broker: Callable[..., RedisBroker], transactional_db: None, tmp_path: Path) -> Iterator[Any]:
    """The guide's app on its queue, with a target that is there; ``limited`` shortens the soft limit."""
    declared = run_block(PAGE, -1)
    yard = replace(small_yard(), queues=(declared["VIDEOS"],), pools=declared["POOLS"])
    assert check_yard(yard) == []
    broker = yard_broker(replace(yard, queues=(replace(declared["VIDEOS"], soft_limit_ms=1_000),)))
    (target := tmp_path / "target.mp4").write_bytes(OLD)
    with shown_app(PAGE, broker) as app:
        job = facilities(broker).records.read
        yield SimpleNamespace(
            broker=broker, job=job, source=tmp_path / "source.mkv", target=target, **vars(app["actors"])
        )


def converting() -> list[int]:
    """Return the FFmpegs below this process."""
    titles = titles_below(os.getpid()).items()
    return [pid for title, pid in titles if " -progress " in title and "--pdeathsig" not in title]


def test_a_video_is_converted_by_ffmpeg_with_its_progress(shown: Any, run_worker: RunWorker, ffmpeg: str) -> None:
    made = ["-f", "lavfi", "-i", "testsrc=duration=2:size=64x64:rate=5", shown.source]
    subprocess.run([ffmpeg, "-v", "error", *made], check=True)

    with run_worker("videos", broker=shown.broker):
        sent = shown.convert_video.send_with_options(args=(str(shown.source), str(shown.target), 2), time_limit=60_000)
        job = wait_for(lambda: (found := shown.job(sent.message_id)) and found.ended and found)

    assert (job.state, job.progress["total"]) == ("succeeded", 2)
    assert 1 <= job.progress["done"] <= 2
    assert shown.target.read_bytes()[4:8] == b"ftyp"
    assert list(shown.target.parent.glob(".converting-*")) == []


def test_the_time_limit_ends_ffmpeg_and_leaves_the_old_video(shown: Any, run_worker: RunWorker, ffmpeg: str) -> None:
    os.mkfifo(shown.source)  # from which nothing ever comes

    with run_worker("videos", broker=shown.broker):
        sent = shown.convert_video.send(str(shown.source), str(shown.target), 2)
        [running] = wait_for(converting)
        wait_for(lambda: (found := shown.job(sent.message_id)) and found.state == "retrying")

    assert not is_alive(running)
    assert shown.job(sent.message_id).error["type"] == "TimeLimitExceeded"
    assert sorted(path.name for path in shown.target.parent.iterdir()) == ["source.mkv", "target.mp4"]
    assert shown.target.read_bytes() == OLD


def test_ffmpeg_ends_with_a_worker_that_is_killed(tmp_path: Path, ffmpeg: str) -> None:
    os.mkfifo(tmp_path / "source.mkv")
    (tmp_path / "target.mp4").write_bytes(OLD)
    code = blocks(PAGE)[0] + "\nconvert(Path('source.mkv'), Path('target.mp4'), print)"
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        [running] = wait_for(converting)
        worker.send_signal(signal.SIGKILL)
        wait_for_end(running, 30)
    finally:
        worker.kill()
        worker.wait()

    assert (tmp_path / "target.mp4").read_bytes() == OLD


def test_what_ffmpeg_cannot_read_leaves_the_old_video(shown: Any, ffmpeg: str) -> None:
    shown.source.write_text("no video")

    with pytest.raises(subprocess.CalledProcessError, match="ffmpeg"):
        shown.convert(shown.source, shown.target, lambda done: None)

    assert shown.target.read_bytes() == OLD


def test_a_host_without_it_is_told_what_to_install(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(FileNotFoundError, match="sudo apt install"):
        shown.convert(shown.source, shown.target, lambda done: None)
