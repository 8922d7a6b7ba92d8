"""No file of ours is loaded under two names: a second copy of a class is another class.

``middleware/`` is imported as ``switchyard.middleware``; ``import middleware`` would load it again. Every process
of the small yard, and a web process, notes each module's file that it executes, by an audit hook.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.workers.conftest import ROOT, Bench
from tests.waiting import wait_for

# Forked processes inherit what their parent has loaded. "exec" is raised for the code of each module.
NOTES_WHAT_IT_LOADS = """
import os, sys
loaded = set()
def note(event, arguments):
    if event == "exec" and getattr(arguments[0], "co_name", "") == "<module>":
        file = os.path.realpath(arguments[0].co_filename)
        if file.startswith({root!r}) and file.endswith(".py"):
            with open({notes!r} + ("twice" if file in loaded else "once"), "a") as notes:
                notes.write(f"{{os.getpid()}} {{file}}\\n")
            loaded.add(file)
sys.addaudithook(note)
"""
OURS = ("apps", "middleware", "switchyard")


def test_no_process_of_a_yard_loads_a_file_under_two_names(bench: Bench, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    notes = f"{tmp_path}/loaded-"
    (hook / "sitecustomize.py").write_text(NOTES_WHAT_IT_LOADS.format(root=f"{ROOT}/", notes=notes))
    bench.environment["PYTHONPATH"] = str(hook)

    parent = bench.up("runpools")
    tokens = [bench.send(queue) for queue in ("urgent", "slow", "webhook")]
    children = {wait_for(lambda token=token: bench.ended(token))["pid"] for token in tokens}
    parent.terminate()
    assert parent.wait(60) == 0
    web = {**bench.environment, "DJANGO_SETTINGS_MODULE": "project.settings"}
    subprocess.run([sys.executable, "-c", "import project.asgi"], cwd=ROOT, env=web, check=True, timeout=60)

    once = [line.split() for line in Path(f"{notes}once").read_text().splitlines()]
    files = {Path(file).relative_to(ROOT).parts[0] for _, file in once}
    assert files.issuperset(OURS)
    assert len(children) == 3
    assert {int(pid) for pid, _ in once} >= {parent.pid}
    assert not Path(f"{notes}twice").exists(), Path(f"{notes}twice").read_text()
