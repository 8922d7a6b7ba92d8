"""A running yard is upgraded from each kept release to this tree and taken back, without a loss."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from django.conf import settings

from tests.integration.wheel.hosts import Host, write_host
from tests.waiting import wait_for

pytestmark = [pytest.mark.timeout(900), pytest.mark.exact]  # installs and starts processes, beside other tests
RELEASES = sorted(Path(settings.BASE_DIR, "tests/upgrade").glob("switchyard-*.whl"))
ACTORS = """
import time
from pathlib import Path

import dramatiq

HERE = Path(__file__).parent.parent


@dramatiq.actor(max_retries=0)
def note(name):
    with (HERE / "ended").open("a") as file:
        print(name, file=file)


@dramatiq.actor(max_retries=0)
def hold(name):
    (HERE / f"started-{name}").touch()
    while not (HERE / "released").exists():
        time.sleep(0.05)
    note.fn(name)


@dramatiq.actor(max_retries=0)
def mend(name):
    if not (HERE / "mended").exists():
        raise ValueError(name)
    note.fn(name)
"""
LEAVES = """
from django.db.migrations.loader import MigrationLoader
found = MigrationLoader(None).graph.leaf_nodes()
print([f"{app} {name}" for app, name in found if app.startswith("switchyard")])
"""


class Upgraded(Host):
    def migrations(self) -> list[str]:
        """Return each app of the release with its last migration."""
        shown = self.manage("shell", "-v0", "-c", LEAVES).splitlines()[-1]
        return list(json.loads(shown.replace("'", '"')))

    def letters(self) -> list[str]:
        found = json.loads(self.manage("switchyard", "deadletters", "list", "--json"))
        return [letter["id"] for letter in found]

    def ended(self) -> list[str]:
        file = self.folder / "ended"
        return file.read_text().split() if file.exists() else []

    def leave_work(self, tag: str) -> None:
        """Leave a dead letter, a job of a pool that is killed, one that waits and one that is scheduled."""
        for name in ("mended", "released"):
            (self.folder / name).unlink(missing_ok=True)
        with self.running_pools() as pools:
            sends = f"from yard.actors import hold, mend; mend.send('dead-{tag}'); hold.send('ran-{tag}')"
            self.manage("shell", "-v0", "-c", sends)
            wait_for(lambda: (self.folder / f"started-ran-{tag}").exists() and self.letters(), timeout_s=120)
            for process in [*psutil.Process(pools.pid).children(recursive=True), psutil.Process(pools.pid)]:
                process.kill()
            pools.wait(60)
        sends = (
            "from yard.actors import note; "
            f"note.send('waited-{tag}'); note.send_with_options(args=('scheduled-{tag}',), delay=5_000)"
        )
        self.manage("shell", "-v0", "-c", sends)

    def end_work(self, tag: str) -> None:
        """Requeue the dead letter that another release left, and run all that it left.

        Requeued while nothing else writes: 0.9.0 does not wait for SQLite in every command.
        """
        for name in ("mended", "released"):
            (self.folder / name).touch()
        [letter] = self.letters()
        self.manage("switchyard", "deadletters", "requeue", letter)
        with self.running_pools():
            names = {f"{what}-{tag}" for what in ("dead", "ran", "waited", "scheduled")}
            wait_for(lambda: names <= set(self.ended()), timeout_s=120)
            wait_for(lambda: not self.letters(), timeout_s=60)


@pytest.fixture
def host(least, broker_url, tmp_path):
    """A project with this tree's wheel; what a failed test left running is ended."""
    folder = write_host(tmp_path, {"yard/actors.py": ACTORS}, last='INSTALLED_APPS += ["yard"]')
    yield Upgraded(least, folder, f"{broker_url}?db=2")
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(folder):
            os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name.split("-")[1])
def test_a_yard_is_upgraded_and_taken_back_without_a_loss(release, host, index, tmp_path_factory):
    before = replace(index, wheel=release).make(tmp_path_factory.mktemp("before") / "venv", "embedded")
    old = replace(host, environment=before)

    old.manage("migrate")
    old.leave_work("forth")
    host.manage("migrate")
    host.end_work("forth")

    host.leave_work("back")
    for target in set(old.migrations()) - set(host.migrations()):
        host.manage("migrate", *target.split())
    old.end_work("back")

    ran = host.ended()
    assert {name for name in ran if ran.count(name) > 1} == set()


def test_a_release_is_kept():
    assert RELEASES
