"""A process that would run in a wrong yard, on absent CPUs or with endless mail exits 78 and says what to change."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import UserSettingsHolder, global_settings, settings
from django.db.migrations.loader import MigrationLoader
from django.test import override_settings

from switchyard.broker.topology import Pool, Yard
from switchyard.conf import read
from switchyard.workers import preflight
from switchyard.workers.checks import installation
from switchyard.workers.checks.database import migrations_on_disk
from switchyard.workers.checks.installation import endless_mail
from switchyard.workers.child import main
from switchyard.workers.preflight import refuse_if_unwritable, refuse_if_wrong, warn_if_too_small

SOUND = settings.SWITCHYARD.topology
FEW = replace(SOUND.pools[0], database_connections=1)
WRONG = replace(settings.SWITCHYARD, topology=Yard(SOUND.queues, (FEW, *SOUND.pools[1:])))


def test_a_sound_yard_starts(capsys: pytest.CaptureFixture[str]) -> None:
    refuse_if_wrong(ask_broker=False)

    assert capsys.readouterr().err == ""


def test_a_wrong_yard_exits_78_with_subject_fact_fix_and_id(capsys: pytest.CaptureFixture[str]) -> None:
    with override_settings(SWITCHYARD=WRONG), pytest.raises(SystemExit) as exit:
        refuse_if_wrong(ask_broker=False)

    assert exit.value.code == 78
    said = capsys.readouterr().err
    assert said.startswith("switchyard: refused to start: pool urgent: 1 × 4 slots, ")
    assert "database_connections is 1; in" in said
    assert "the topology" in said
    assert "(switchyard.E010)" in said


def test_a_folder_of_metrics_that_is_a_file_exits_78_with_pool_and_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics").write_text("")
    wrong = replace(settings.SWITCHYARD, state_dir=tmp_path, metrics_dir=tmp_path / "metrics")

    with override_settings(SWITCHYARD=wrong), pytest.raises(SystemExit) as exit:
        refuse_if_unwritable(SOUND.pools)

    assert exit.value.code == 78
    said = capsys.readouterr().err
    assert f"pool urgent: its metrics cannot be written to {tmp_path}/metrics/urgent (not a directory); export" in said
    assert "export SWITCHYARD_STATE_DIR=DIR for another folder" in said
    assert "let this user" not in said


def test_a_silenced_check_does_not_stop_the_start() -> None:
    with override_settings(SWITCHYARD=WRONG, SILENCED_SYSTEM_CHECKS=["switchyard.E010"]):
        refuse_if_wrong(ask_broker=False)


def test_a_container_that_is_too_small_for_its_pools_is_named_with_figures(capsys: pytest.CaptureFixture[str]) -> None:
    pool = replace(SOUND.pools[0], processes=2, isolated=1, memory_limit_bytes=200_000_000)

    warn_if_too_small([pool], 900_000_000)

    said = capsys.readouterr().err
    assert said.startswith("switchyard: warning: this container has 900 MB, and its pools may take 968 MB")
    assert f"4 children of up to 200 MB in pool {pool.name}" in said
    assert "; raise the container's memory, or lower memory_limit_bytes, isolated or processes in" in said


SMTP = "django.core.mail.backends.smtp.EmailBackend"


@pytest.mark.parametrize("timeout", [None, 0])
def test_mail_without_a_timeout_is_refused(timeout: int | None) -> None:
    with override_settings(EMAIL_TIMEOUT=timeout, EMAIL_BACKEND=SMTP):
        [message] = endless_mail()

    assert message.id == "switchyard.E006"
    assert "EMAIL_TIMEOUT" in str(message.hint)


@pytest.mark.parametrize("backend", ["locmem", "console", "dummy"])
def test_mail_that_reaches_no_server_needs_no_timeout(backend: str) -> None:
    with override_settings(EMAIL_TIMEOUT=None, EMAIL_BACKEND=f"django.core.mail.backends.{backend}.EmailBackend"):
        assert not list(endless_mail())


@pytest.mark.parametrize(
    ("options", "names"), [({}, ['MAILERS["default"]["OPTIONS"]["timeout"]']), ({"OPTIONS": {"timeout": 8}}, [])]
)
def test_each_mailer_of_django_6_1_needs_a_timeout(
    options: dict[str, object], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = UserSettingsHolder(global_settings)
    stock.MAILERS = {"default": options, "tests": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    monkeypatch.setattr(installation, "settings", stock)

    assert [message.msg.partition(" is ")[0] for message in endless_mail()] == names


def test_a_project_that_names_nothing_of_mail_needs_no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = UserSettingsHolder(global_settings)
    stock.SWITCHYARD = {"DEBUG": True, "ALERT_URLS": ["log:"]}
    monkeypatch.setattr(installation, "settings", stock)
    monkeypatch.setattr(installation, "switchyard_settings", lambda: read(stock.SWITCHYARD, {}, debug=True))

    assert not list(endless_mail())


@pytest.mark.parametrize("url", ["mailto:ops@example.com", "oncall=mailto:ops@example.com"])
def test_alerts_by_mail_need_a_timeout(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = UserSettingsHolder(global_settings)
    settings = read({"ALERT_URLS": [url], "STATE_DIR": tmp_path}, {}, debug=True, base_dir=tmp_path)
    monkeypatch.setattr(installation, "settings", stock)
    monkeypatch.setattr(installation, "switchyard_settings", lambda: settings)

    assert [message.id for message in endless_mail()] == ["switchyard.E006"]


MOVED = {"switchyard_audit": None, "switchyard_bulk": "missing_module", "switchyard_alerts": "missing.migrations"}


@override_settings(MIGRATION_MODULES=MOVED)
def test_files_name_the_migrations_that_django_loads() -> None:
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


def test_a_cpu_that_is_not_there_is_refused_in_production_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usable(monkeypatch, 0, 1)

    with override_settings(DEBUG=False), pytest.raises(SystemExit) as exit:
        preflight.refuse_if_not_pinnable([SLOW, PINNED])

    assert exit.value.code == 78
    assert "pool slow: cpus names 7, this process may use 0, 1; name some of these" in capsys.readouterr().err


def test_on_a_development_machine_a_pool_runs_on_the_cpus_that_are_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pinned = usable(monkeypatch, 0, 1)

    with override_settings(DEBUG=True), caplog.at_level(logging.WARNING):
        preflight.refuse_if_not_pinnable([PINNED])
    main.pin(PINNED)

    assert "cpus names 7" in caplog.text
    assert pinned == [{0}]


@pytest.mark.parametrize("pool", [PINNED, SLOW])
def test_a_platform_without_pinning_warns_of_what_it_ignores(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pool: Pool
) -> None:
    monkeypatch.delattr("os.sched_getaffinity")

    preflight.refuse_if_not_pinnable([pool])
    main.pin(pool)

    assert ("pool slow: cpus is ignored" in caplog.text) is bool(pool.cpus)
