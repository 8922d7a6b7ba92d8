"""One run of the sample work: sent and followed by two threads, so that the demo itself never waits for the web."""

from __future__ import annotations

import http
import secrets
import threading
from collections.abc import Callable, Iterator

from demo.client import Client, RequestFailed
from demo.feed import Feed
from demo.sample import endpoints, orders
from demo.sample.answers import Answers
from demo.sample.follower import follow
from demo.sample.journal import Journal
from demo.sample.sender import Sender
from demo.yard import DemoYard

PAUSE_S = 0.05


class SampleRun:
    """Sends everything once.

    Args:
        is_over: Waits so many seconds and returns whether the demo is over.
    """

    def __init__(self, yard: DemoYard, feed: Feed, *, is_over: Callable[[float], bool]) -> None:
        self.journal = Journal()
        self.client = Client(yard.addresses.site, yard.token)
        self.run = secrets.token_hex(4)
        self.answers = Answers(payment_id=f"pay_demo_{self.run}")
        self._yard = yard
        self._feed = feed
        self._is_over = is_over

    def start(self) -> list[threading.Thread]:
        """Start sending and following, and return the threads."""
        threads = [
            threading.Thread(target=self._send, name="sample sender", daemon=True),
            threading.Thread(target=self._follow, name="sample follower", daemon=True),
        ]
        for thread in threads:
            thread.start()
        return threads

    def _follow(self) -> None:
        follow(self.journal, self.client, self._feed, is_over=self._is_over)

    def _send(self) -> None:
        sender = Sender(self.client, self.journal, self._feed, self.run)
        for order in self._orders(sender):
            try:
                for _ in order:
                    if self._is_over(PAUSE_S):
                        return
            except RequestFailed as error:
                self._feed.add(f"sample work could not be sent: {error}", "bad")

    def _orders(self, sender: Sender) -> tuple[Iterator[object], ...]:
        addresses, facts = self._yard.addresses, self._yard.facts
        return (
            endpoints.deliveries(sender, addresses.receiver, self._yard.state.sample),
            self._scheduled(sender),
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

    def _scheduled(self, sender: Sender) -> Iterator[object]:
        jobs = self._yard.facts["scheduled"]
        yield sender.note("jobs", "later", "Newsletter scheduled for later", jobs["later"])
        yield sender.note("jobs", "cancelled", "Newsletter that is cancelled", jobs["cancelled"])
        sender.attempt("DELETE", f"/api/v1/jobs/{jobs['cancelled']}")

    def _payment(self, sender: Sender) -> Iterator[object]:
        if self._yard.facts["open_invoice"] is None:
            return
        event = orders.payment_event(self._yard.facts, self.answers.payment_id)
        secret = self._yard.identity.payment_secret
        for _ in range(2):  # a provider that missed the first answer sends the event again
            self.answers.payment.append(orders.send_payment_event(sender, secret, event))
            if self.answers.payment[-1] == http.HTTPStatus.ACCEPTED:
                self._feed.add("A payment provider's signed event was taken in", "good")
            yield None
        forged = orders.payment_event(self._yard.facts, self.answers.forged_payment_id)
        self.answers.forged = orders.send_payment_event(sender, "a secret that is not the yard's own", forged)
