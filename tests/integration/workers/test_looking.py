"""The page about looking into a worker, step by step, on a real pool."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.held_port import held_port
from tests.integration.workers.conftest import ROOT, Bench
from tests.processes import titles_below
from tests.unit.documentation.pages import code_blocks, read
from tests.waiting import wait_for

START, PROBE, STACKS = code_blocks(read("docs/how-to/look-into-a-worker.md"), "sh")


def words_of(command: str, port: int) -> list[str]:
    """Return the words of a command of the page, run by this interpreter from the root, on another port."""
    python, *words = shlex.split(command.replace("9100", str(port)))
    assert python == "python"
    return [sys.executable, *words]


def test_probe_of_the_page_tells_a_pool_that_works_from_one_that_is_gone(bench: Bench) -> None:
    with held_port() as port:
        _, manage, *arguments = words_of(START, port)
        pool = bench.start(*arguments)
        bench.wait_for_log("pool slow: ready")

        def probe() -> subprocess.CompletedProcess[str]:
            return subprocess.run(words_of(PROBE, port), cwd=ROOT, capture_output=True, text=True, check=False)

        assert manage == "manage.py"
        assert wait_for(lambda: (done := probe()).returncode == 0 and done).stderr == ""
        pool.terminate()
        pool.wait(60)
        gone = probe()
        assert (gone.returncode, gone.stderr) == (
            1,
            f"127.0.0.1:{port}/health did not answer: [Errno 111] Connection refused\n",
        )


def test_signal_of_the_page_writes_the_file_it_names(bench: Bench) -> None:
    pool = bench.start("runpool", "slow")
    bench.wait_for_log("pool slow: ready")
    token = bench.send("slow", ms=60_000)
    child = wait_for(lambda: bench.started(token))["pid"]
    shown, signal = STACKS.splitlines()
    pattern = re.compile(shlex.split(shown)[-1])
    below = {"pool slow": pool.pid, **titles_below(pool.pid)}
    listed = {pid for title, pid in below.items() if pattern.search(f"{pid} switchyard: {title}")}
    assert {pool.pid, child} <= listed

    file = bench.folder / "stacks" / f"slow-{child}.txt"
    for pid in (child, pool.pid):
        size = written(file)
        subprocess.run(["bash", "-c", signal.replace("PID", str(pid))], check=True)
        wait_for(lambda size=size: written(file) > size, what=f"stacks after a signal to {pid}")
        wait_for(lambda: "actors.py" in file.read_text(), what="where the task stands")


def written(file: Path) -> int:
    """Return the size of a file, 0 when it is not there."""
    return file.stat().st_size if file.exists() else 0
