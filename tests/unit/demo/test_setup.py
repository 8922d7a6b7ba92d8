"""Parts that are forked from the set-up process: ours in the end, with their own log, and gone when we are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from project.config import BASE_DIR
from tests.processes import is_alive
from tests.waiting import wait_for

FORKER = """
import json, os, sys, time
from pathlib import Path
from demo.setup import fork_parts

def work():
    print("working", flush=True)
    time.sleep(600)

def fail():
    sys.exit(78)

print(json.dumps(fork_parts({"web": work, "pools": fail}, Path(sys.argv[1]), {"web": {0}})), flush=True)
"""
OWNER = """
import json, subprocess, sys, time
from pathlib import Path
from switchyard.workers.shared.parent_death import adopt_orphans
from demo.processes import CommandPart
from tests.waiting import wait_for

assert adopt_orphans()
done = subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]], capture_output=True, text=True, check=True)
pids = json.loads(done.stdout)
parts = {name: CommandPart(name, (), {}, Path(sys.argv[1]) / f"{name}.log") for name in pids}
for name, part in parts.items():
    part.adopt(pids[name])
wait_for(lambda: parts["pools"].exit_code() is not None)
parts["web"].start()
print(json.dumps([pids["web"], parts["web"].pid, parts["pools"].exit_code()]), flush=True)
if len(sys.argv) > 3:
    time.sleep(600)
parts["web"].terminate()
wait_for(lambda: parts["web"].pid is None)
print(parts["web"].exit_code(), flush=True)
"""


def owner(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OWNER, str(folder), FORKER, *more]
    return subprocess.Popen(command, cwd=BASE_DIR, stdout=subprocess.PIPE, text=True)


def test_forked_parts_become_our_children_with_logs_and_exit_codes_of_their_own(tmp_path: Path) -> None:
    with owner(tmp_path) as process:
        output, _ = process.communicate(timeout=60)

    first, last = output.splitlines()
    forked, running, refused = json.loads(first)
    assert running == forked  # start() took the one that runs
    assert refused == 78
    assert int(last) == -signal.SIGTERM
    assert (tmp_path / "web.log").read_text() == "working\n"
    assert (tmp_path / "pools.log").read_text() == ""


def test_forked_part_ends_with_an_owner_that_was_killed(tmp_path: Path) -> None:
    with owner(tmp_path, "stay") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().strip("[]\n").split(",")[0])
        wait_for(lambda: is_alive(pid))

        os.kill(process.pid, signal.SIGKILL)

    wait_for(lambda: not is_alive(pid))
