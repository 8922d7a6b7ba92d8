"""Lines of the pools' log become lines of the demo, for jobs of everybody but the sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.job_lines import MOST_LINES, JobLines

AT = "2026-11-21T10:48:11.514869Z"


def line(event: str, job_id: str = "7", **fields: object) -> str:
    """Return a line as ``middleware.logs`` writes it for a terminal."""
    shown = " ".join(f"{name}={value}" for name, value in {"actor": "greet", **fields, "job_id": job_id}.items())
    return f"{AT} [info     ] {event:30} [switchyard.jobs] {shown} queue=default\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    log = tmp_path / "pools.log"
    log.write_text(line("succeeded", "of a run before"))
    return log


def news(log: Path, *texts: str, sample: str = "") -> list[str]:
    """Return what the demo says of lines that are added."""
    said: list[str] = []
    lines = JobLines(log, said.append)
    with log.open("a") as file:
        file.writelines(texts)
    lines.read([sample])
    return said


def test_each_end_of_an_attempt_is_shown(log: Path) -> None:
    retried = line("retried", "7", duration_ms=3, error="\"'missing'\"", raised="KeyError")

    shown = news(log, retried, line("succeeded", "7", duration_ms=1960), line("dead", "8", reason="permanent"))

    assert shown == [
        "greet 7: retried in 3 ms (KeyError missing)",
        "greet 7: succeeded in 1,960 ms",
        "greet 8: dead (permanent)",
    ]


def test_jobs_of_the_sample_and_other_lines_are_left_out(log: Path) -> None:
    other = f"{AT} [info     ] counted 3 of 4                 [apps.loyalty] actor=greet job_id=9\n"

    assert news(log, line("succeeded", "7"), other, "a print()\n", sample="7") == []


def test_a_parked_job_a_reload_and_a_refusal_are_shown(log: Path) -> None:
    shown = news(
        log,
        f"{AT} [warning  ] parked until a worker knows it (logged once a minute) [m.parking] actor=x job_id=1\n",
        f"{AT} [error    ] reload: the pools ended with 1; they start again when a file changes [switchyard.workers]\n",
        "switchyard: refused to start: actor hello: max_retries is '3'; write a number (a/actors.py:3)\n",
    )

    assert shown == [
        "x 1: parked until a worker knows it",
        "reload: the pools ended with 1; they start again when a file changes",
        "switchyard: refused to start: actor hello: max_retries is '3'; write a number (a/actors.py:3)",
    ]


def test_a_burst_is_summed_up_with_the_name_of_the_log(log: Path) -> None:
    shown = news(log, *(line("succeeded", str(number)) for number in range(MOST_LINES + 5)))

    assert len(shown) == MOST_LINES + 1
    assert shown[-1] == f"and 5 more, see {log}"


def test_a_log_that_is_missing_or_made_anew_is_read_from_its_start(log: Path) -> None:
    said: list[str] = []
    lines = JobLines(log, said.append)
    log.unlink()
    lines.read()
    log.write_text(line("succeeded", "3")[:-1])
    lines.read()
    with log.open("a") as file:
        file.write("\n")
    lines.read()

    assert said == ["greet 3: succeeded"]
