from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment import SERVER
from tests.integration.serving.web_process import WebProcess


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebProcess]:
    """The web in a process of its own."""
    folder: Path = tmp_path_factory.mktemp("web")
    web = WebProcess(folder, SERVER.url)
    web.start()
    yield web
    web.stop()
