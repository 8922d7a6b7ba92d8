from __future__ import annotations

import pytest

from switchyard.operations.templatetags.humanize_room import code_marks


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
