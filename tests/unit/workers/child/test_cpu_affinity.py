"""CPUs that a pool names and the machine does not have."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from django.conf import settings
from django.test import override_settings

from switchyard.broker.topology import Pool
from switchyard.workers import preflight
from switchyard.workers.child import spawn

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
    spawn.pin(PINNED)

    assert "cpus names 7" in caplog.text
    assert pinned == [{0}]


@pytest.mark.parametrize("pool", [PINNED, SLOW])
def test_a_platform_without_pinning_warns_of_what_it_ignores(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pool: Pool
) -> None:
    monkeypatch.delattr("os.sched_getaffinity")

    preflight.refuse_if_not_pinnable([pool])
    spawn.pin(pool)

    assert ("pool slow: cpus is ignored" in caplog.text) is bool(pool.cpus)
