"""The command line of ``bin/demo``."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.__main__ import parse
from project.config import BASE_DIR


def test_without_arguments_the_state_is_in_var_and_the_sample_is_sent() -> None:
    found = parse([])

    assert found.state == (BASE_DIR / "var").resolve()
    assert not (found.port or found.no_sample or found.reload or found.check)


def test_port_state_sample_and_reload_can_be_chosen(tmp_path: Path) -> None:
    found = parse(["--port", "9000", "--state", str(tmp_path), "--no-sample", "--reload"])

    assert (found.port, found.state, found.no_sample, found.reload) == (9000, tmp_path.resolve(), True, True)


@pytest.mark.parametrize(
    "argv",
    [
        ["--port", "0"],
        ["--port", "65536"],
        ["--port", "web"],
        ["--check", "--port", "1"],
        ["--check", "--reload"],
        ["--chekc"],
    ],
)
def test_nonsense_is_refused_with_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)

    assert ended.value.code == 2
    assert "usage: bin/demo" in capsys.readouterr().err
