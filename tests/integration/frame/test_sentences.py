"""Names in a verdict's sentences are links to their pages; everything else is text."""

from __future__ import annotations

from switchyard.console.links import actor_url, queue_url
from switchyard.jobs.templatetags.switchyard_jobs import named

ACTOR = "generate_report"


def link(address: str, name: str) -> str:
    return f'<a class="sy-link sy-code" href="{address}">{name}</a>'


def test_actors_and_the_subject_are_links() -> None:
    shown = named(f"slow is 7.2 × behind, because 2 × {ACTOR} hold all slots of slow.", "slow")

    assert shown.startswith(f"{link(queue_url('slow'), 'slow')} is 7.2 × behind")
    assert f"2 × {link(actor_url(ACTOR), ACTOR)} hold all slots of slow." in shown


def test_everything_is_escaped_and_backticks_are_code() -> None:
    assert named("<b> of `<i>`", "<b>") == '&lt;b&gt; of <code class="sy-code">&lt;i&gt;</code>'
    assert named("one ` alone <b>") == "one ` alone &lt;b&gt;"
