"""A process that would run in a wrong yard exits 78 and says what to change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from django.conf import settings
from django.test import override_settings

from switchyard.broker.topology import Yard
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
