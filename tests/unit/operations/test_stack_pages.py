from __future__ import annotations

import pytest

from switchyard.broker.stores.pool_reports import ChildStacks, Stack
from switchyard.operations.stacks import own_frame, shown_stacks
from switchyard.operations.templatetags.humanize_room import code_marks

TASK = Stack(
    "thread",
    [
        "/usr/lib/python3.11/socket.py:718 readinto",
        "django/db/models/sql/query.py:1680 _add_q",
        "apps/webhooks/delivering.py:52 deliver",
        "dramatiq/worker.py:560 process_message",
    ],
)
IDLE = Stack("running thread", ["/usr/lib/python3.11/threading.py:327 wait", "switchyard/workers/child/main.py:9 run"])


def test_stacks_of_tasks_come_first_and_their_own_frames_are_marked() -> None:
    (child,) = shown_stacks([ChildStacks(7, [IDLE, TASK])])

    [task] = child["tasks"]
    assert task["does"] == "runs a task"
    assert [text for text, is_own in task["frames"] if is_own] == ["apps/webhooks/delivering.py:52 deliver"]
    assert task["frames"][0][0] == "socket.py:718 readinto"


def test_the_line_of_the_task_is_named_where_the_stacks_that_do_not_wait_agree() -> None:
    task = Stack("thread", ["re/__init__.py:176 search", "apps/mail/actors.py:9 send"])
    other = Stack("thread", ["apps/mail/actors.py:10 send"])

    assert own_frame([TASK]) == own_frame([TASK, IDLE, Stack("thread")]) == "apps/webhooks/delivering.py:52 deliver"
    assert own_frame([task, task]) == "apps/mail/actors.py:9 send"
    assert own_frame([task, other]) == own_frame([IDLE]) == own_frame([]) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run `kill -CONT 1`.", 'run <code class="sy-code">kill -CONT 1</code>.'),
        ("of ``YYYY-MM``", 'of <code class="sy-code">YYYY-MM</code>'),
        ("<b>`<i>`", '&lt;b&gt;<code class="sy-code">&lt;i&gt;</code>'),
        ("one ` alone <b>", "one ` alone &lt;b&gt;"),
    ],
)
def test_backticks_are_code_and_everything_is_escaped(text: str, shown: str) -> None:
    assert code_marks(text) == shown
