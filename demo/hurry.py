"""The demo's hurry: delays of retries are divided by one number, so that a story of hours takes seconds."""

from __future__ import annotations

from apps.platform.console.formatting import retries_text, rough_duration
from project.topology import YARD

# 5 retries over 4 h to 8 h take 9 s to 18 s.
RETRY_SPEED = 1_500
HURRIED = YARD.hurried(RETRY_SPEED)


def sentence() -> str:
    """Return the sentence that a starting demo prints."""
    policy = HURRIED.queue_of("webhook").retry
    least, most = (rough_duration(span_ms / RETRY_SPEED) for span_ms in policy.span_ms())
    declared = retries_text(policy.retries, policy.span_ms())
    return f"retries come {RETRY_SPEED:,} times as fast as in production: {declared} take {least} to {most} here"
