"""Units of systemd: what systemd itself says of them, and that they outlive a drain."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from switchyard.deployment.rendered_files import memory_mib, render, write
from switchyard.workers.supervisor.children import KILL_AFTER_GRACE_S
from switchyard.workers.supervisor.supervisor import GRACE_S
from tests.unit.deployment.yards import VANS, YARD

FILES = render("systemd", YARD)
# Systemd wants programs and folders that exist.
HERE = {"root": str(settings.BASE_DIR), "python": sys.executable, "user": "root"}
MOST_EXPOSED = 25  # tenths of systemd's score, from 0 for a unit that may do nothing to 100


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``systemd-analyze``. It exits with 0 on a key that it does not know, but says so."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def written(folder: Path) -> list[str]:
    write(folder, render("systemd", YARD, values=HERE))
    return sorted(map(str, (folder / "ops/systemd").iterdir()))


def test_every_process_has_a_unit_that_its_target_starts() -> None:
    names = ["web", "scheduler", "history", *(f"pool-{pool.name}" for pool in YARD.pools)]
    [target] = (text for path, text in FILES.items() if path.endswith("switchyard.target"))
    [wanted] = (line.removeprefix("Wants=").split() for line in target.splitlines() if line.startswith("Wants="))

    assert wanted == [f"switchyard-{name}.service" for name in names]
    assert {f"ops/systemd/{name}" for name in (*wanted, "switchyard.target")} == set(FILES)


def test_pool_has_its_memory_and_is_killed_after_its_drain_alone() -> None:
    unit = dict(
        line.split("=", 1) for line in FILES["ops/systemd/switchyard-pool-vans.service"].splitlines() if "=" in line
    )

    assert unit["ExecStart"].endswith("manage.py switchyard runpool vans --metrics-port 9191")
    assert int(unit["TimeoutStopSec"]) > GRACE_S + KILL_AFTER_GRACE_S
    assert (unit["KillMode"], unit["RestartPreventExitStatus"]) == ("mixed", "78")
    assert unit["MemoryMax"] == f"{memory_mib(VANS)}M"


def test_systemd_has_nothing_to_say_of_any_unit(tmp_path: Path) -> None:
    done = analyze("verify", *written(tmp_path))

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_units_may_do_little(tmp_path: Path) -> None:
    units = [path for path in written(tmp_path) if path.endswith(".service")]

    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", *units)

    assert done.returncode == 0, done.stdout
