"""Deliveries of other programs, and outgoing answers: pending until the server has them, and no longer than needed."""

import json
import threading
from typing import Any

import pika
import pytest

from switchyard.addons.cluster.calls import QueueBarrier
from switchyard.addons.rabbitmq.connections import CONTENT_TYPE, Publishers, parameters_of
from switchyard.addons.rabbitmq.outgoing import MANY, NO_NUMBER, Outgoing, Publication, read
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.queue.codec import UnreadableMessage
from switchyard.broker.worker.prefetch import HeldMarks
from tests.addons.cluster.unit.test_barrier import SpreadRecords
from tests.unit.broker.worker.test_ack_barrier import end

OURS = b'{"actor":"job","sent_at":1}'
STOCK = {"queue_name": "work", "actor_name": "job", "args": [], "kwargs": {}, "options": {}, "message_timestamp": 1}


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
def test_an_answer_is_pending_while_it_is_being_sent(answer):
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

    def flush(self, *, with_starts: bool, queue: str) -> None:
        self.begun += 1
        self.written = self.begun

    def written_of(self, queue: str) -> int:
        return self.written


@pytest.mark.parametrize(("busy", "acknowledged"), [(False, [MANY]), (True, [])])
def test_many_acknowledgements_wait_for_the_background_only_while_there_is_something_to_hand_out(busy, acknowledged):
    channel = Channel()
    outgoing = Outgoing(channel, Background(), window=MANY)
    for tag in range(1, MANY + 1):
        outgoing.unacked[tag] = Publication(f"job-{tag}")
        outgoing.ack(tag)

    outgoing.send(busy=busy)

    assert channel.acknowledged == acknowledged
    assert outgoing.pending is busy


def test_nothing_is_acknowledged_whose_record_a_node_that_is_away_did_not_take():
    """Beside RabbitMQ may be a cluster of Redis: each queue's records are on one of its nodes."""
    records = SpreadRecords()
    records.away = {"gone"}
    barrier = QueueBarrier(records)
    sent = {queue: Channel() for queue in ("gone", "work")}
    outgoing = {queue: Outgoing(channel, barrier, window=1, queue=queue) for queue, channel in sent.items()}
    for queue, one in outgoing.items():
        one.unacked[1] = Publication(queue)
        one.ack(1)
        barrier.add(end(queue, queue))

    for _ in range(2):
        outgoing["work"].send()
        with pytest.raises(BrokerUnavailable):
            barrier.flush()
        with pytest.raises(BrokerUnavailable):
            outgoing["gone"].send()

    assert {queue: channel.acknowledged for queue, channel in sent.items()} == {"gone": [], "work": [1]}
    records.away = set()
    outgoing["gone"].send()
    assert sent["gone"].acknowledged == [1]


def test_jobs_whose_acknowledgement_breaks_off_are_told_as_ended():
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


class Returns:
    """A channel, and notes of returns, in the order in which they come."""

    def __init__(self) -> None:
        self.log: list[object] = []

    def basic_nack(self, tag: int, *, requeue: bool) -> None:
        self.log.append(tag if requeue else -tag)

    def basic_ack(self, tag: int, *, multiple: bool = False) -> None:
        self.log.append("ack")

    def note(self, marks: list[int]) -> None:
        self.log.append(marks)


def returning() -> tuple[Outgoing, Returns, HeldMarks]:
    """Return what holds the deliveries 1 to 4, with the numbers 11 to 14."""
    channel, marks = Returns(), HeldMarks(memoryview(bytearray(64)).cast("q"))
    outgoing = Outgoing(channel, None, window=8, note_returns=channel.note, held=marks)
    for tag in range(1, 5):
        outgoing.receive(tag, Publication(f"job-{tag}", b"%d" % (10 + tag)))
    return outgoing, channel, marks


def test_returns_are_noted_together_before_the_server_hears_of_them():
    outgoing, channel, marks = returning()
    outgoing.give_back(1)
    outgoing.give_back(3)
    outgoing.reject(4)

    outgoing.send()

    assert channel.log == [[11, 13], 1, 3, -4]
    assert marks.read() == [12]


def test_a_lost_connection_notes_all_that_has_not_ended():
    outgoing, channel, marks = returning()
    outgoing.drop(2)

    outgoing.lose(outgoing.ended(processed=True))

    assert channel.log == [[11, 13, 14]]
    assert marks.read() == []


def test_what_is_acknowledged_is_held_no_longer():
    outgoing, _, marks = returning()
    for tag in (1, 3):
        outgoing.drop(tag)

    outgoing.send()

    assert sorted(marks.read()) == [12, 14]


def test_a_publish_without_a_connection_is_known_to_have_done_nothing():
    publishers = Publishers(parameters_of("amqp://guest:guest@127.0.0.1:1/"))

    with pytest.raises(BrokerUnavailable) as refused:
        publishers.publish("work", b"{}", None, declare=lambda channel: None)

    assert refused.value.outcome == "refused"


def ours(**fields: Any) -> pika.BasicProperties:
    return pika.BasicProperties(content_type=CONTENT_TYPE, **fields)


@pytest.mark.parametrize("number", ["²", "٣", "12²", "1" * 21, "-1", "x", b"\xb2", None])
def test_a_publication_without_a_number_of_ours_counts_as_one_without(number):
    message, found = read(ours(message_id="a", correlation_id=number), OURS, "work")

    assert found == NO_NUMBER
    assert Publication(message.message_id, found).mark > 0


def test_an_id_that_is_not_utf_8_is_written_out():
    message, _ = read(ours(message_id=b"caf\xe9"), OURS, "work")

    assert message.message_id == r"caf\xe9"


@pytest.mark.parametrize(
    "body",
    [
        *(json.dumps({**STOCK, "message_id": 5}).encode(), json.dumps({**STOCK, "message_id": None}).encode()),
        *(json.dumps({**STOCK, "message_id": ["a"]}).encode(), b"[" * 100_000, b"1" * 5_000, b'{"a":' * 100_000),
    ],
    ids=["a number as id", "no id", "a list as id", "nested lists", "too many digits", "nested objects"],
)
def test_what_is_no_message_of_dramatiq_is_unreadable(body):
    with pytest.raises(UnreadableMessage):
        read(pika.BasicProperties(), body, "work")
