"""The demo's hurry: delays of retries are divided by one number, so that a story of hours takes seconds."""

from __future__ import annotations

from project.topology import YARD
from switchyard.console.formatting import retries_text, rough_duration

# 5 retries over 3 h 47 min to 7 h 36 min take 9 s to 19 s.
RETRY_SPEED = 1_500
HURRIED = YARD.hurried(RETRY_SPEED)


def sentence() -> str:
    """Return the sentence that a starting demo prints."""
    policy = HURRIED.queue_of("webhook").retry
    shortest_ms, longest_ms = (span_ms / RETRY_SPEED for span_ms in policy.span_ms())
    least, most = rough_duration(shortest_ms, up=False), rough_duration(longest_ms, up=True)
    declared = retries_text(policy.retries, policy.span_ms())
    return f"retries come {RETRY_SPEED:,} times as fast as in production: {declared} take {least} to {most} here"
