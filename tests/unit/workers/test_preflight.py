"""A start of pools: a wrong yard exits 78 and says what to change; modules of actors are found and may send nothing."""

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from django.apps import apps
from django.conf import UserSettingsHolder, global_settings, settings
from django.db.migrations.loader import MigrationLoader
from django.test import override_settings
from dramatiq.brokers.stub import StubBroker

from apps.exports import actors
from project.config import BASE_DIR
from switchyard.broker.topology import Yard
from switchyard.conf import read
from switchyard.middleware import status
from switchyard.middleware.errors import SendingFile
from switchyard.workers import apps as worker_apps
from switchyard.workers import preflight
from switchyard.workers.apps import no_sends
from switchyard.workers.checks import installation
from switchyard.workers.checks.database import migrations_on_disk
from switchyard.workers.checks.installation import endless_mail
from switchyard.workers.child import main
from switchyard.workers.pool_group import Changes, own_code
from switchyard.workers.preflight import refuse_if_unwritable, refuse_if_wrong, warn_if_too_small
from switchyard.workers.shared.fork import import_path

SOUND = settings.SWITCHYARD.topology
FEW = replace(SOUND.pools[0], database_connections=1)
WRONG = replace(settings.SWITCHYARD, topology=Yard(SOUND.queues, (FEW, *SOUND.pools[1:])))


def test_a_wrong_yard_exits_78_with_subject_fact_fix_and_id(capsys):
    with override_settings(SWITCHYARD=WRONG), pytest.raises(SystemExit) as exit:
        refuse_if_wrong(ask_broker=False)

    assert exit.value.code == 78
    said = capsys.readouterr().err
    assert said.startswith("switchyard: refused to start: pool urgent: 1 × 4 slots, ")
    assert "database_connections is 1; in" in said and "the topology" in said
    assert "(switchyard.E010)" in said


def test_a_metrics_folder_that_is_a_file_exits_78_with_both(tmp_path, capsys):
    (tmp_path / "metrics").write_text("")
    wrong = replace(settings.SWITCHYARD, state_dir=tmp_path, metrics_dir=tmp_path / "metrics")

    with override_settings(SWITCHYARD=wrong), pytest.raises(SystemExit) as exit:
        refuse_if_unwritable(SOUND.pools)

    assert exit.value.code == 78
    said = capsys.readouterr().err
    assert f"pool urgent: its metrics cannot be written to {tmp_path}/metrics/urgent (not a directory); export" in said
    assert "export SWITCHYARD_STATE_DIR=DIR for another folder" in said and "let this user" not in said


def test_a_sound_yard_and_one_whose_check_is_silenced_start(capsys):
    refuse_if_wrong(ask_broker=False)
    with override_settings(SWITCHYARD=WRONG, SILENCED_SYSTEM_CHECKS=["switchyard.E010"]):
        refuse_if_wrong(ask_broker=False)

    assert capsys.readouterr().err == ""


def test_a_container_that_is_too_small_for_its_pools_is_named_with_figures(capsys):
    pool = replace(SOUND.pools[0], processes=2, isolated=1, memory_limit_bytes=200_000_000)

    warn_if_too_small([pool], 900_000_000)

    said = capsys.readouterr().err
    assert said.startswith("switchyard: warning: this container has 900 MB, and its pools may take 968 MB")
    assert f"4 children of up to 200 MB in pool {pool.name}" in said
    assert "; raise the container's memory, or lower memory_limit_bytes, isolated or processes in" in said


SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.mark.parametrize("timeout", [None, 0])
def test_mail_without_a_timeout_is_refused(timeout):
    with override_settings(EMAIL_TIMEOUT=timeout, EMAIL_BACKEND=SMTP):
        [message] = endless_mail()

    assert message.id == "switchyard.E006"
    assert "EMAIL_TIMEOUT" in str(message.hint)


@pytest.mark.parametrize("backend", ["locmem", "console", "dummy"])
def test_mail_that_reaches_no_server_needs_no_timeout(backend):
    with override_settings(EMAIL_TIMEOUT=None, EMAIL_BACKEND=f"django.core.mail.backends.{backend}.EmailBackend"):
        assert not list(endless_mail())


@pytest.mark.parametrize(
    ("options", "names"), [({}, ['MAILERS["default"]["OPTIONS"]["timeout"]']), ({"OPTIONS": {"timeout": 8}}, [])]
)
def test_mailers_need_a_timeout(options, names, monkeypatch):
    stock = UserSettingsHolder(global_settings)
    stock.MAILERS = {"default": options, "tests": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    monkeypatch.setattr(installation, "settings", stock)

    assert [message.msg.partition(" is ")[0] for message in endless_mail()] == names


OF_MAIL = ["switchyard.E006"]


@pytest.mark.parametrize(
    ("url", "ids"), [("log:", []), ("mailto:ops@example.com", OF_MAIL), ("oncall=mailto:ops@example.com", OF_MAIL)]
)
def test_alerts_by_mail_need_a_timeout_and_a_project_that_names_nothing_of_mail_none(url, ids, tmp_path, monkeypatch):
    settings = read({"ALERT_URLS": [url], "STATE_DIR": tmp_path}, {}, debug=True, base_dir=tmp_path)
    monkeypatch.setattr(installation, "settings", UserSettingsHolder(global_settings))
    monkeypatch.setattr(installation, "switchyard_settings", lambda: settings)

    assert [message.id for message in endless_mail()] == ids


MOVED = {"switchyard_audit": None, "switchyard_bulk": "missing_module", "switchyard_alerts": "missing.migrations"}


@override_settings(MIGRATION_MODULES=MOVED)
def test_files_name_the_migrations_that_django_loads():
    found = set(migrations_on_disk())

    assert found == MigrationLoader(None, ignore_no_migrations=True).disk_migrations.keys()
    assert ("auth", "0001_initial") in found and apps.is_installed("switchyard.bulk")


SLOW = settings.SWITCHYARD.topology.pool("slow")
PINNED = replace(SLOW, cpus=(0, 7))


def usable(monkeypatch: pytest.MonkeyPatch, *cpus: int) -> list[set[int]]:
    """Have a machine with these CPUs; return the sets that processes are pinned to."""
    pinned: list[set[int]] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(cpus), raising=False)
    monkeypatch.setattr("os.sched_setaffinity", lambda pid, to: pinned.append(set(to)), raising=False)
    return pinned


def test_production_refuses_an_absent_cpu(monkeypatch, capsys):
    usable(monkeypatch, 0, 1)

    with override_settings(DEBUG=False), pytest.raises(SystemExit) as exit:
        preflight.refuse_if_not_pinnable([SLOW, PINNED])

    assert exit.value.code == 78
    assert "pool slow: cpus names 7, this process may use 0, 1; name some of these" in capsys.readouterr().err


def test_development_runs_on_cpus_that_exist(monkeypatch, caplog):
    pinned = usable(monkeypatch, 0, 1)

    with override_settings(DEBUG=True), caplog.at_level(logging.WARNING):
        preflight.refuse_if_not_pinnable([PINNED])
    main.pin(PINNED)

    assert "cpus names 7" in caplog.text
    assert pinned == [{0}]


@pytest.mark.parametrize("pool", [PINNED, SLOW])
def test_ignored_cpus_are_named(monkeypatch, caplog, pool):
    monkeypatch.delattr("os.sched_getaffinity")

    preflight.refuse_if_not_pinnable([pool])
    main.pin(pool)

    assert ("pool slow: cpus is ignored" in caplog.text) is bool(pool.cpus)


FILE = "loyalty/actors.py"


@pytest.fixture
def broker() -> StubBroker:
    broker = StubBroker()
    dramatiq.actor(lambda: None, actor_name="hello", broker=broker)
    return broker


@pytest.mark.parametrize("call", ["enqueue(message)", "enqueue(message=message)", "enqueue_many(messages=[message])"])
def test_a_message_of_a_module_is_refused_however_it_is_passed(broker, call):
    broker.enqueue_many = lambda messages: None  # type: ignore[attr-defined]

    with no_sends(broker), pytest.raises(SendingFile, match=FILE):
        code = f"message = broker.get_actor('hello').message()\nbroker.{call}"
        exec(compile(code, FILE, "exec"), {"__name__": "loyalty.actors", "broker": broker})


def test_what_else_is_sent_meanwhile_reaches_the_broker(broker):
    with no_sends(broker):
        exec(
            compile("broker.enqueue(message=m)", "go", "exec"),
            {"__name__": "__main__", "broker": broker, "m": broker.get_actor("hello").message()},
        )

    assert broker.queues["default"].qsize() == 1


def test_a_broker_has_its_own_methods_again_and_one_that_was_patched_before_stays_so(broker):
    sent: list[Any] = []
    with no_sends(broker), no_sends(broker):
        pass
    assert "enqueue" not in vars(broker)
    broker.enqueue = sent.append  # type: ignore[method-assign,assignment]

    with no_sends(broker), no_sends(broker):
        pass
    broker.get_actor("hello").broker.enqueue("a message")  # type: ignore[arg-type]

    assert sent == ["a message"]


TASK = "from switchyard.compat.celery import shared_task\n\n@shared_task\ndef {name}(): ...\n"
APPS = {
    "moved_here/tasks.py": TASK.format(name="tell"),
    "moved_package/tasks/__init__.py": "from moved_package.tasks import mails\n",
    "moved_package/tasks/mails.py": TASK.format(name="write"),
    "of_celery/tasks.py": "raise RuntimeError('Celery imports this')\n",
    "of_nothing/models.py": "",
}


def test_tasks_that_moved_here_are_imported_and_those_of_celery_are_not(tmp_path, monkeypatch, switchyard_broker):
    for name, text in APPS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    names = sorted({name.partition("/")[0] for name in APPS})
    apps = SimpleNamespace(get_app_configs=lambda: [SimpleNamespace(name=name, path=tmp_path / name) for name in names])
    monkeypatch.setattr(worker_apps, "apps", apps)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(switchyard_broker, "actors", dict(switchyard_broker.actors))

    worker_apps.declare_actors()

    assert {"tell", "write"} <= switchyard_broker.actors.keys()
    assert "of_celery.tasks" not in sys.modules


def test_written_new_and_deleted_files_are_changes_and_others_are_none(tmp_path):
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


def test_a_folder_that_goes_away_while_it_is_read_is_a_change(tmp_path, monkeypatch):
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


def test_a_new_interpreter_finds_what_this_one_was_told_to(tmp_path, monkeypatch):
    (tmp_path / "apps").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "apps")  # as the manage.py of many a project does
    folders = import_path().split(os.pathsep)

    assert {str(BASE_DIR), str(tmp_path / "apps")} <= set(folders)
    assert [folder for folder in folders if "lib/python3" in folder] == []


def test_the_projects_code_is_watched_and_no_packages():
    watched = own_code()

    for module in (actors, status):
        assert Path(str(module.__file__)) in watched
    assert {path.name for path in watched if path.is_dir()} >= {"apps", "project", "switchyard"}
    assert not [path for path in watched if "site-packages" in path.parts or path.name == ".venv"]
