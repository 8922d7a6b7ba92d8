"""Asks the API how each job stands and says what changed."""

from __future__ import annotations

import http
from collections.abc import Callable

from demo.client import Client, RequestFailed
from demo.feed import Feed
from demo.sample.journal import Journal, SentJob

POLL_S = 0.5


def follow(journal: Journal, client: Client, feed: Feed, *, is_over: Callable[[float], bool]) -> None:
    """Ask for every unfinished job, twice a second, until it is over.

    Args:
        is_over: Waits for so many seconds, less when it is over, and returns whether it is.
    """
    while not is_over(POLL_S):
        for job in journal.unfinished():
            try:
                answer = client.send("GET", f"/api/v1/jobs/{job.job_id}")
            except RequestFailed:
                break  # the web is being restarted; the feed tells of that
            if answer.status != http.HTTPStatus.OK:
                continue
            before, now = journal.see(job.job_id, answer.json())
            if (before.state, before.attempts) != (now.state, now.attempts):
                tell(feed, now)


def tell(feed: Feed, job: SentJob) -> None:
    """Say where a job is now, if that is news to people."""
    attempts = "1 attempt" if job.attempts == 1 else f"{job.attempts} attempts"
    error = (job.body.get("error") or {}).get("type", "an error")
    if job.state == "succeeded":
        again = f" at attempt {job.attempts}" if job.attempts > 1 else ""
        feed.add(f"{job.title}: done in {job.took_s or 0:.1f} s{again}", "good")
    elif job.state == "retrying":
        feed.add(f"{job.title}: attempt {job.attempts} failed ({error}); it waits in its retry queue", "wait")
    elif job.state == "dead":
        feed.add(f"{job.title}: given up after {attempts} ({error}); see the dead letters", "bad")
    elif job.state == "scheduled" and job.reason == "rate_limit":
        feed.add(f"{job.title}: held back by the rate limit", "wait")
    elif job.state in ("cancelled", "expired"):
        feed.add(f"{job.title}: {job.state}", "plain")
