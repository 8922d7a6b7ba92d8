"""A mistake in the file of a yard is answered with its line and what to write, and with no other remedy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from switchyard.conf import yard_of
from switchyard.setting_values import InvalidSetting

START = "from switchyard.broker.topology import Pool, Queue, Yard\n\n"
QUEUE = 'Queue("mail", objective_ms=100, soft_limit_ms=1_000, hard_limit_ms=2_000'


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (f"YARD = Yard((\n    {QUEUE}, {more}),\n), ())", rf"{words} \(wrong_yard\.py:4\)$")
        for more, words in (
            ("calls=5", r"queue mail: calls is 5; write .*"),
            ("maxdepth=5", r"Queue has no 'maxdepth'; did you mean 'max_depth'\? It has name, objective_ms, .*"),
            ("colour=5", r"Queue has no 'colour'; it has name, .*"),
            ("timeout=5", r"Queue has no 'timeout'; it has name, .*"),
            ("max_retries=5", r"Queue has no 'max_retries'; it is an option of RetryPolicy\(.* Queue has name, .*"),
        )
    ]
    + [
        (
            'YARD = Yard((), (Pool("mail", "threads", ("mail",), processes=1, concurrency=4),))',
            r"Pool has no 'concurrency'; it has name, kind, .* \(wrong_yard\.py:3\)$",
        ),
        (
            'YARD = Yard((Queue("mail"),), ())',
            r"a Queue lacks objective_ms, soft_limit_ms, hard_limit_ms; write objective_ms=\.\.\., .*py:3\)$",
        ),
        ("YARD = Yard(())", r"a Yard lacks pools; write pools=\.\.\. \(wrong_yard\.py:3\)$"),
        (
            "YARD = Yard((), (), 1, (), None, (), 2)",
            r"Yard\(\.\.\.\) takes from 3 to 7 .*; a Yard has queues, .*wrong_yard\.py:3\)$",
        ),
        ("yard = Yard((), ())", r'"YARD" attribute/class; name a Yard, for example "mysite.topology.YARD"$'),
        ("YARD = 5", r"is a int, not a Yard; declare one with Yard\("),
    ],
)
def test_a_mistake_in_the_file_of_a_yard_names_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: str, words: str
) -> None:
    (tmp_path / "wrong_yard.py").write_text(START + declared + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wrong_yard", raising=False)

    with pytest.raises(InvalidSetting, match=rf'^SWITCHYARD\["TOPOLOGY"\]: .*{words}'):
        yard_of('SWITCHYARD["TOPOLOGY"]', "wrong_yard.YARD")


def test_a_fault_of_other_code_in_that_file_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_yard.py").write_text("YARD = len(5)\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(TypeError, match="has no len"):
        yard_of('SWITCHYARD["TOPOLOGY"]', "broken_yard.YARD")
