"""The supervisor's log: where its metrics are, and that its parent is gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from switchyard.conf import declared_yard, switchyard_settings
from switchyard.workers.shared.child_table import ChildTable
from switchyard.workers.supervisor import supervisor as module
from switchyard.workers.supervisor.supervisor import Supervisor


class Signals:
    """Stand-in for the signal pipe: the test process keeps its handlers."""

    def __init__(self, **_: Any) -> None:
        self.read_fd, self._write_fd = os.pipe()
        self.came = [signal.SIGTERM]

    def take(self) -> list[int]:
        came, self.came = self.came, []
        return came

    def close(self) -> None:
        """Close both ends."""
        os.close(self.read_fd)
        os.close(self._write_fd)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    settings = replace(switchyard_settings(), metrics_dir=tmp_path, broker_url="redis://127.0.0.1:1/0")
    monkeypatch.setattr(module, "switchyard_settings", lambda: settings)
    monkeypatch.setattr(module, "signals_of_parent", Signals)
    monkeypatch.setattr(module, "prepare_to_fork", lambda: None)
    monkeypatch.setattr("switchyard.workers.supervisor.children.start_child", lambda *_, **__: 0)
    made: list[Supervisor] = []

    def make_one(**options: Any) -> Supervisor:
        made.append(Supervisor(declared_yard().pools[0], **options))
        return made[-1]

    yield make_one
    for supervisor in made:
        supervisor._close_inherited()


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://0.0.0.0:"), ("localhost", "http://localhost:")],
)
def test_the_address_of_the_metrics_is_logged_as_they_are_served(
    make: Callable[..., Supervisor], host: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = make(metrics_host=host)

    supervisor.run()

    assert f"metrics at {url}{supervisor._listener.port}/metrics" in caplog.text


def test_a_parent_that_is_gone_is_logged_once_and_ends_the_pool(
    make: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    [row] = ChildTable.create(1).rows
    supervisor = make(own_row=row)
    monkeypatch.setattr(module.os, "getppid", lambda: 1)
    warning = Mock()
    monkeypatch.setattr(module.logger, "warning", warning)

    for _ in range(5):
        supervisor._enforce_drain()

    assert [call.args[-1] for call in warning.call_args_list] == ["the parent is gone"]
    assert supervisor._children.stopping
