"""One run of the sample work: two threads send and follow it, so that the main thread never waits for the web."""

from __future__ import annotations

import http
import secrets
import threading
from collections.abc import Callable, Iterator

from demo.client import Client, RequestFailed
from demo.sample import orders
from demo.sample.journal import Answers, Journal, Sender, SentJob
from demo.yard import DemoYard

POLL_S = 0.5
PAUSE_S = 0.05


class SampleRun:
    """One run, which sends each order once and follows its jobs.

    Args:
        is_over: Waits so many seconds, less when the demo stops, and returns whether it does.
    """

    def __init__(self, yard: DemoYard, say: Callable[[str], object], *, is_over: Callable[[float], bool]) -> None:
        self.journal = Journal()
        self.client = Client(yard.addresses.site, yard.token)
        self.run = secrets.token_hex(4)
        self.answers = Answers(payment_id=f"pay_demo_{self.run}")
        self._yard = yard
        self._say = say
        self._is_over = is_over

    def start(self) -> list[threading.Thread]:
        """Start both threads and return them."""
        threads = [
            threading.Thread(target=self._send, name="sample sender", daemon=True),
            threading.Thread(target=self._follow, name="sample follower", daemon=True),
        ]
        for thread in threads:
            thread.start()
        return threads

    def _follow(self) -> None:
        """Poll every unfinished job twice a second and say its changes."""
        while not self._is_over(POLL_S):
            for job in self.journal.unfinished():
                try:
                    answer = self.client.send("GET", f"/api/v1/jobs/{job.job_id}")
                except RequestFailed:
                    break  # the web is being restarted, which the manager reports
                if answer.status != http.HTTPStatus.OK:
                    continue
                before, now = self.journal.update(job.job_id, answer.json())
                if (before.state, before.attempts) != (now.state, now.attempts) and (line := news_of(now)):
                    self._say(line)

    def _send(self) -> None:
        sender = Sender(self.client, self.journal, self.run)
        for order in self._orders(sender):
            try:
                for _ in order:
                    if self._is_over(PAUSE_S):
                        return
            except RequestFailed as error:
                self._say(f"sample work could not be sent: {error}")

    def _orders(self, sender: Sender) -> tuple[Iterator[object], ...]:
        addresses, facts = self._yard.addresses, self._yard.facts
        return (
            orders.deliveries(sender, addresses.receiver, self._yard.state.sample),
            self._newsletters(sender),
            orders.password_resets(sender),
            orders.statements(sender, facts),
            orders.thumbnails(sender, f"{addresses.receiver}/image.jpg"),
            orders.exports(sender),
            orders.reconciliation(sender, facts),
            self._payment(sender),
            orders.welcome_mails(sender),
            self._private_url(sender),
        )

    def _private_url(self, sender: Sender) -> Iterator[object]:
        self.answers.private_url = orders.request_private_url(sender)
        yield None

    def _newsletters(self, sender: Sender) -> Iterator[object]:
        """Follow the newsletters that set-up enqueued, and cancel the later one."""
        jobs = self._yard.facts["scheduled"]
        yield sender.follow("jobs", "later", "Newsletter scheduled for later", jobs["later"])
        yield sender.follow("jobs", "cancelled", "Newsletter that is cancelled", jobs["cancelled"])
        self.client.send("DELETE", f"/api/v1/jobs/{jobs['cancelled']}")

    def _payment(self, sender: Sender) -> Iterator[object]:
        if self._yard.facts["open_invoice"] is None:
            return
        event = orders.payment_event(self._yard.facts, self.answers.payment_id)
        secret = self._yard.identity.payment_secret
        for _ in range(2):  # a provider that missed the first answer sends the event again
            self.answers.payment.append(orders.send_payment_event(sender, secret, event))
            if self.answers.payment[-1] == http.HTTPStatus.ACCEPTED:
                self._say("A payment provider's signed event was taken in")
            yield None
        forged = orders.payment_event(self._yard.facts, self.answers.forged_payment_id)
        self.answers.forged = orders.send_payment_event(sender, "a secret that is not the yard's own", forged)


def news_of(job: SentJob) -> str:
    """Return a line about the job's new state; "" for the intermediate states queued and running."""
    attempts = "1 attempt" if job.attempts == 1 else f"{job.attempts} attempts"
    error = (job.body.get("error") or {}).get("type", "an error")
    if job.state == "succeeded":
        again = f" at attempt {job.attempts}" if job.attempts > 1 else ""
        return f"{job.title}: done in {job.took_s or 0:.1f} s{again}"
    if job.state == "retrying":
        return f"{job.title}: attempt {job.attempts} failed ({error}); it waits in its retry queue"
    if job.state == "dead":
        return f"{job.title}: given up after {attempts} ({error}); see the dead letters"
    if job.state == "scheduled" and job.reason == "rate_limit":
        return f"{job.title}: held back by the rate limit"
    return f"{job.title}: {job.state}" if job.state in ("cancelled", "expired") else ""
