"""Outgoing answers are pending until the server has them: a worker that ends waits for that."""

from __future__ import annotations

import threading

import pytest

from broker.rabbit.outgoing import Outgoing
from broker.rabbit.publication import Publication


class SlowChannel:
    """A channel whose every call waits until it may go on."""

    def __init__(self) -> None:
        self.called, self.go_on = threading.Event(), threading.Event()

    def basic_ack(self, tag: int, *, multiple: bool = False) -> None:
        self.called.set()
        assert self.go_on.wait(10)

    def basic_nack(self, tag: int, *, requeue: bool) -> None:
        self.basic_ack(tag)


@pytest.mark.parametrize("answer", ["ack", "drop", "give_back", "reject"])
def test_an_answer_is_pending_while_it_is_being_sent(answer: str) -> None:
    channel = SlowChannel()
    outgoing = Outgoing(channel, None, window=1)
    outgoing.unacked[7] = Publication("job")
    getattr(outgoing, answer)(7)
    sender = threading.Thread(target=outgoing.send)
    sender.start()
    assert channel.called.wait(10)

    meanwhile = outgoing.pending
    channel.go_on.set()
    sender.join(10)

    assert (meanwhile, outgoing.pending) == (True, False)
