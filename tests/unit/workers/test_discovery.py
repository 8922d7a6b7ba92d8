"""Files of a project: modules of actors are found and may send nothing meanwhile, changed files restart pools."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

import apps.exports.actors
import switchyard.middleware.status
from project.config import BASE_DIR
from switchyard.middleware.errors import SendingFile
from switchyard.testing import MemoryBroker
from switchyard.workers import apps as discovery
from switchyard.workers.apps import no_sends
from switchyard.workers.pool_group import Changes, own_code
from switchyard.workers.shared.fork import import_path

FILE = "loyalty/actors.py"


@pytest.fixture
def broker() -> StubBroker:
    broker = StubBroker()
    dramatiq.actor(lambda: None, actor_name="hello", broker=broker)
    return broker


def imported(code: str, broker: StubBroker) -> None:
    """Run code as that of a module of actors."""
    exec(compile(code, FILE, "exec"), {"__name__": "loyalty.actors", "broker": broker})


@pytest.mark.parametrize("call", ["enqueue(message)", "enqueue(message=message)", "enqueue_many(messages=[message])"])
def test_a_message_of_a_module_is_refused_however_it_is_passed(broker: StubBroker, call: str) -> None:
    broker.enqueue_many = lambda messages: None  # type: ignore[attr-defined]

    with no_sends(broker), pytest.raises(SendingFile, match=FILE):
        imported(f"message = broker.get_actor('hello').message()\nbroker.{call}", broker)


def test_what_else_is_sent_meanwhile_reaches_the_broker(broker: StubBroker) -> None:
    with no_sends(broker):
        exec(
            compile("broker.enqueue(message=m)", "go", "exec"),
            {"__name__": "__main__", "broker": broker, "m": broker.get_actor("hello").message()},
        )

    assert broker.queues["default"].qsize() == 1


def test_a_broker_that_was_patched_before_stays_so(broker: StubBroker) -> None:
    sent: list[Any] = []
    broker.enqueue = sent.append  # type: ignore[method-assign,assignment]

    with no_sends(broker), no_sends(broker):
        pass
    broker.get_actor("hello").broker.enqueue("a message")  # type: ignore[arg-type]

    assert sent == ["a message"]


def test_a_broker_has_its_own_methods_again(broker: StubBroker) -> None:
    with no_sends(broker), no_sends(broker):
        pass

    assert "enqueue" not in vars(broker)


TASK = "from switchyard.compat.celery import shared_task\n\n@shared_task\ndef {name}(): ...\n"
APPS = {
    "moved_here/tasks.py": TASK.format(name="tell"),
    "moved_package/tasks/__init__.py": "from moved_package.tasks import mails\n",
    "moved_package/tasks/mails.py": TASK.format(name="write"),
    "of_celery/tasks.py": "raise RuntimeError('Celery imports this')\n",
    "of_nothing/models.py": "",
}


def test_tasks_that_moved_here_are_imported_and_those_of_celery_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switchyard_broker: MemoryBroker
) -> None:
    for name, text in APPS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    names = sorted({name.partition("/")[0] for name in APPS})
    apps = SimpleNamespace(get_app_configs=lambda: [SimpleNamespace(name=name, path=tmp_path / name) for name in names])
    monkeypatch.setattr(discovery, "apps", apps)
    monkeypatch.syspath_prepend(tmp_path)

    discovery.declare_actors()

    assert {"tell", "write"} <= switchyard_broker.actors.keys()
    assert "of_celery.tasks" not in sys.modules


def test_written_new_and_deleted_files_are_changes_and_others_are_none(tmp_path: Path) -> None:
    folder, alone = tmp_path / "package", tmp_path / "alone.py"
    written, deleted, new = (folder / f"{name}.py" for name in ("written", "deleted", "new"))
    (folder / "below").mkdir(parents=True)
    for path in (written, deleted, alone, folder / "below" / "same.py", folder / "notes.txt"):
        path.touch()
    changes = Changes([folder, alone])

    os.utime(written, ns=(1, 1))
    os.utime(alone, ns=(1, 1))
    os.utime(folder / "notes.txt", ns=(1, 1))
    deleted.unlink()
    new.touch()

    assert changes.poll() == {written, alone, deleted, new}
    assert changes.poll() == set()


def test_a_folder_that_goes_away_while_it_is_looked_at_is_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "package" / "gone"
    gone.mkdir(parents=True)
    (gone / "module.py").touch()
    changes = Changes([tmp_path / "package"])
    scan = os.scandir

    def scandir(folder: str | os.PathLike[str]) -> Any:
        if os.fspath(folder) == str(gone) and gone.is_dir():
            (gone / "module.py").unlink()
            gone.rmdir()
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)

    assert changes.poll() == {gone / "module.py"}


def test_a_new_interpreter_finds_what_this_one_was_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apps").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "apps")  # as the manage.py of many a project does
    folders = import_path().split(os.pathsep)

    assert {str(BASE_DIR), str(tmp_path / "apps")} <= set(folders)
    assert [folder for folder in folders if "lib/python3" in folder] == []


def test_the_projects_code_is_watched_and_no_packages() -> None:
    watched = own_code()

    for module in (apps.exports.actors, switchyard.middleware.status):
        assert Path(str(module.__file__)) in watched
    assert {path.name for path in watched if path.is_dir()} >= {"apps", "project", "switchyard"}
    assert not [path for path in watched if "site-packages" in path.parts or path.name == ".venv"]
