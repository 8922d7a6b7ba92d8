"""Outgoing answers are pending until the server has them, and wait for records no longer than they must."""

from __future__ import annotations

import threading

import pytest

from broker.rabbit.outgoing import MANY, Outgoing
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


class Channel:
    """A channel that keeps the tags of its acknowledgements."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []

    def basic_ack(self, tag: int, *, multiple: bool = False) -> None:
        self.acknowledged.append(tag)


class Background:
    """A barrier with a thread that writes, and has not written yet."""

    in_background = True

    def __init__(self) -> None:
        self.begun = self.written = 0

    def flush(self, *, with_starts: bool) -> None:
        self.begun += 1
        self.written = self.begun


@pytest.mark.parametrize(("busy", "acknowledged"), [(False, [MANY]), (True, [])])
def test_many_acknowledgements_wait_for_the_background_only_while_there_is_something_to_hand_out(
    busy: bool, acknowledged: list[int]
) -> None:
    channel = Channel()
    outgoing = Outgoing(channel, Background(), window=MANY)  # type: ignore[arg-type]
    for tag in range(1, MANY + 1):
        outgoing.unacked[tag] = Publication(f"job-{tag}")
        outgoing.ack(tag)

    outgoing.send(busy=busy)

    assert channel.acknowledged == acknowledged
    assert outgoing.pending is busy


def test_jobs_whose_acknowledgement_breaks_off_are_told_as_ended() -> None:
    class Broken(Channel):
        def basic_ack(self, tag: int, *, multiple: bool = False) -> None:
            raise ConnectionResetError

    outgoing = Outgoing(Broken(), None, window=2)
    for tag in (1, 2):
        outgoing.unacked[tag] = Publication(f"job-{tag}")
        outgoing.ack(tag)

    with pytest.raises(ConnectionResetError):
        outgoing.send()

    assert [publication.id for publication in outgoing.ended(processed=False)] == ["job-1", "job-2"]
