from __future__ import annotations

from switchyard.queues.facts import WIDTH, SlotRun, picture_of

NOW = 1_800_000_000_000


def test_runs_at_the_same_time_are_on_lines_of_their_own() -> None:
    runs = [
        SlotRun("export", NOW - 60_000, None),
        SlotRun("mail", NOW - 50_000, NOW - 40_000),
        SlotRun("mail", NOW - 30_000, None),
    ]

    found = picture_of(runs, 4, NOW, late_after_ms=None)

    assert found is not None
    assert [(block.y, block.kind) for block in found.blocks] == [(0, "live"), (26, "ok"), (26, "live")]
    assert [block.x + block.width == WIDTH for block in found.blocks] == [True, False, True]
    assert found.blocks[0].title == "export, 1 min 00 s so far"
    assert (found.slots, found.span, found.has_long) == (4, "1 min 05 s", False)


def test_runs_longer_than_the_promise_of_a_late_queue_are_marked() -> None:
    runs = [SlotRun("export", NOW - 60_000, None), SlotRun("mail", NOW - 900, NOW - 800)]

    late, on_time = (picture_of(runs, 2, NOW, late_after_ms=promise) for promise in (1_000, None))

    assert late is not None and on_time is not None
    assert [block.kind for block in late.blocks] == ["bad", "ok"] and late.has_long
    assert [block.hatch_x is not None for block in late.blocks] == [True, False]
    assert not on_time.has_long
