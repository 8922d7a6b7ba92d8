"""The order of causes, and the number of slots that would do."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest

from switchyard.broker.stores.yard_facts import RUN_MS, RUNS, SUCCEEDED, WAITS
from switchyard.operations import diagnosis
from switchyard.operations.diagnosis import PRECEDENCE, diagnose, slots_needed
from switchyard.operations.findings.finding import PRECEDENCE as RANKS
from switchyard.operations.findings.finding import Finding, ranked
from switchyard.operations.past import Usual
from switchyard.operations.rows import Row, RowStatus
from tests.unit.documentation.pages import read

QUEUE = {SUCCEEDED: 240, WAITS: 240, RUNS + 8: 240, RUN_MS: 240_000}


def row(*, waiting: int = 0, slots: int = 2, busy: int | None = None) -> Row:
    status, taken = RowStatus("Late", "bad"), slots if busy is None else busy
    return Row("default", "queue", "", "open", status, queue="default", waiting=waiting, slots=slots, busy=taken)


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Counts of the last two minutes, and what is usual: without a broker."""
    known: dict[str, Any] = {"q:default": QUEUE, "a:export": {SUCCEEDED: 4, WAITS + 3: 4, RUNS + 11: 4}}
    monkeypatch.setattr(diagnosis, "_window", lambda: known)
    monkeypatch.setattr(diagnosis, "_usual_ms", lambda actor: known.get(f"usual {actor}"))
    return known


def found(*named: tuple[str, str], word: str = "", actor: str = "") -> list[Any]:
    findings = [
        Finding(*name.split(".", 1), "warning", f"{name} is so", next="a step", subject=of, word=word, actor=actor)
        for name, of in named
    ]
    return ranked(findings)


def test_what_explains_most_comes_first_and_what_follows_is_left_out() -> None:
    everything = found(
        ("actors.leaking", "mail"), ("queues.retrying", "other"), ("queues.late", "default"), ("queues.limited", "x"),
        ("actors.silent", "urgent"), ("actors.slower", "default"), ("actors.failing", "urgent"), ("pools.down", "y"),
    )  # fmt: skip

    told = diagnose(everything, {}, {})

    expected = ["nothing_dispatches", "failing", "slower", "silent", "limit", "retry_storm", "leak"]
    assert [each.cause for each in told] == expected, "late follows from slower"
    assert [each.confidence for each in told[:3]] == [0.95, 0.9, 0.8]


def test_the_headline_begins_with_jobs_that_fail_and_not_with_an_actor_that_is_slower_while_none_is_late() -> None:
    both = found(("actors.slower", "webhook"), ("actors.failing", "default"))

    assert [each.finding.name for each in both] == ["actors.failing", "actors.slower"]
    assert [each.cause for each in diagnose(both, {}, {})] == ["failing", "slower"]


@pytest.mark.parametrize(("word", "cause"), [("Blocked", "wrong_queue"), ("Flooded", "flood"), ("", "too_few_slots")])
def test_a_late_queue_has_the_cause_of_its_label(word: str, cause: str) -> None:
    [told] = diagnose(found(("queues.late", "default"), word=word), {}, {})

    assert told.cause == cause
    assert (
        told.evidence
        == "Last 2 min: default 240 attempts ended, 0 failed, half ran at most 1.3 s, half waited at most 5 ms."
    )


def test_too_few_slots_are_told_with_the_number_that_would_do() -> None:
    late = {"default": row(waiting=600)}

    [told] = diagnose(found(("queues.late", "default")), late, {})

    assert told.sentence == "queues.late is so; about 12 slots would do, 2 are there."
    assert slots_needed(late["default"], {}, 1_000) is None
    assert slots_needed(row(slots=5), QUEUE, 1_000) is None, "as many are there"
    assert slots_needed(row(slots=2), QUEUE, 10_000) == 3, "two would be busy all the time"


def test_a_late_queue_whose_slots_are_free_needs_no_more_of_them() -> None:
    [told] = diagnose(found(("queues.late", "default")), {"default": row(waiting=600, slots=4, busy=1)}, {})

    assert (told.cause, told.sentence) == ("nothing_dispatches", "queues.late is so.")
    [told] = diagnose(found(("queues.ends_late", "default")), {"default": row(waiting=600, slots=4, busy=1)}, {})
    assert (told.cause, told.sentence) == ("ends_late", "queues.ends_late is so."), "its jobs start"


def test_jobs_that_usually_run_much_longer_than_the_others_stand_before_them(counted: dict[str, Any]) -> None:
    late, holders = {"default": row(waiting=600)}, {"default": "export"}

    counted["usual a:export"] = 30_000.0
    [told] = diagnose(found(("queues.late", "default")), late, holders)
    counted["usual a:export"] = 900.0
    [other] = diagnose(found(("queues.late", "default")), late, holders)

    assert (told.cause, told.actor, other.cause) == ("head_of_line", "export", "too_few_slots")
    assert told.evidence.startswith("Last 2 min: export 4 attempts ended, 0 failed, half ran")


def test_every_finding_of_a_cause_has_a_rank() -> None:
    named = {name.partition(":")[0] for cause in PRECEDENCE for name in cause.findings}

    ranks = {rank.name for rank in RANKS}
    unknown = {name for name in named - ranks if f"{name.partition('.')[0]}.*" not in ranks}
    assert unknown == set()


@pytest.mark.parametrize(
    ("name", "cause"),
    [("queues.undeclared", "no_queue"), ("queues.lapsed", "stuck"), ("scheduler.down", "no_scheduler")],
)
def test_a_part_that_stands_still_is_not_told_as_if_nothing_started(name: str, cause: str) -> None:
    [told] = diagnose(found((name, "renamed")), {}, {})

    assert told.cause == cause


@pytest.mark.parametrize("kind", PRECEDENCE, ids=lambda kind: kind.name)
def test_the_table_of_causes_names_the_labels_of_each(kind: diagnosis.CauseKind) -> None:
    [row] = [line for line in read("docs/reference/verdicts.md").splitlines() if line.startswith(f"| `{kind.name}` |")]
    labels = {
        name.partition(":")[2] or next(rank.label for rank in RANKS if fnmatchcase(name, rank.name))
        for name in kind.findings
    }

    assert [label for label in labels - {"Database"} if f"*{label}*" not in row] == []
    assert row.endswith(f"| {kind.confidence * 100:.0f} % |")


def test_what_is_less_than_sure_is_said_so() -> None:
    told = diagnosis.Diagnosis("slower", "Slower", "It is.", "", 0.5, "", "", "", "")

    assert told.said == "Most likely: It is."
    assert Usual("now").run_ms is None
