"""Connections to a RabbitMQ server, the names of each lane's queues there, and publishing that the server confirms.

A message that comes alone finds no code in the processor's caches: a call takes over a microsecond then. pika makes 70
to frame a publication, and 30 to find that nothing but its channel waits for a delivery. Here they are fewer.
"""

from __future__ import annotations

import logging
import math
import os
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

import pika
from dramatiq.common import dq_name, q_name
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import (
    AMQPError,
    AMQPHeartbeatTimeout,
    ChannelClosedByBroker,
    ConsumerCancelled,
    NackError,
    UnroutableError,
)
from pika.spec import FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_METHOD, Basic

from switchyard.broker.errors import BrokerRefused, BrokerUnavailable, UnusableAddress
from switchyard.broker.queue.operations import HIGH, LOW, NORMAL
from switchyard.conf import in_words_of_project

QueueType = Literal["quorum", "classic"]

LEVELS: Final = {HIGH: ".high", NORMAL: "", LOW: ".low"}
# Deliveries have stopped when none came for so long; they are stopped after the longer time in any case.
STILL_S: Final = 0.1
STOP_S: Final = 1.0
# Server's error for a user without the right to a queue or an exchange.
ACCESS_REFUSED: Final = 403
# Server's error for a queue that exists with other arguments.
PRECONDITION_FAILED: Final = 406


@dataclass(frozen=True, slots=True)
class RabbitQueues:
    """Names, which begin with ``prefix``, and arguments of the queues of a yard.

    Each level of a lane has a queue: quorum queues have no priorities. What is due later waits in ``.DQ``, and what the
    server rejects, for example after too many returns, in ``.XQ``. A ``quorum`` queue is replicated to the nodes of a
    cluster; ``classic`` keeps one copy.
    """

    prefix: str
    kind: QueueType = "quorum"

    def of(self, lane: str) -> Iterator[str]:
        """Yield the queues that a consumer of a lane reads; of ``work.DQ`` the queue of delayed messages alone."""
        for level in (NORMAL,) if lane != q_name(lane) else LEVELS:
            yield self.name(lane, level)

    def name(self, lane: str, level: int = NORMAL) -> str:
        return f"{self.prefix}.{lane}{LEVELS[level]}"

    def delayed(self, lane: str) -> str:
        return self.name(dq_name(lane))

    def rejected(self, lane: str) -> str:
        """Return the name of the queue of what the server rejects from a lane."""
        return f"{self.prefix}.{q_name(lane)}.XQ"

    def declare(self, channel: Any, lane: str, name: str) -> int:
        """Declare a queue of a lane, with the one for rejected messages; return how many messages are ready in it."""
        rejected = self.rejected(lane)
        answer = channel.queue_declare(queue=rejected, durable=True, arguments={"x-queue-type": self.kind})
        if name == rejected:
            return int(answer.method.message_count)
        answer = channel.queue_declare(queue=name, durable=True, arguments=self._arguments(rejected))
        return int(answer.method.message_count)

    def every(self, lane: str) -> list[str]:
        return [*self.of(lane), self.delayed(lane), self.rejected(lane)]

    def dead_lettering(self, rejected: str) -> dict[str, Any]:
        """Return arguments that have the server put what it rejects into a queue; they need rights of their own."""
        return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": rejected}

    def _arguments(self, rejected: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {"x-queue-type": self.kind, **self.dead_lettering(rejected)}
        if self.kind == "quorum":
            # Without it a message is dropped when the queue of rejected ones cannot take it.
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        return arguments


class QueueConsumers:
    """Deliveries from queues to a channel; they can be stopped, and started again.

    ``held`` returns how many deliveries are not acknowledged; ``prefetch`` is for each queue. ``ended`` says why
    nothing is delivered any more although the connection lives: the server closed the channel, or a queue was deleted.
    """

    def __init__(
        self,
        connection: Any,
        channel: Any,
        names: Sequence[str],
        receive: Callable[..., None],
        *,
        held: Callable[[], int],
        prefetch: int,
    ) -> None:
        self._connection, self._channel, self._names, self._receive = connection, channel, names, receive
        self._held, self._prefetch = held, prefetch
        self._tags: list[str] = []
        self.active = False
        self.ended: Exception | None = None
        channel.add_on_cancel_callback(lambda _: self._end(ConsumerCancelled("a queue was deleted")))
        channel._impl.add_on_close_callback(lambda _, reason: self._end(reason))

    def _end(self, reason: Exception) -> None:
        self.ended = self.ended or reason

    def start(self) -> None:
        if not self.active:
            for tag in self._tags:
                self._channel.basic_cancel(tag)
            self._channel.basic_qos(prefetch_count=self._prefetch)
            self._tags = [self._channel.basic_consume(name, self._receive) for name in self._names]
            self.active = True

    def stop(self) -> None:
        """Cancel the consumers after draining deliveries in flight, so that each can be recorded as unstarted.

        The server drops what is between its queue and the channel at a cancellation, and pika rejects what comes after
        its own. So this waits until nothing more comes: acknowledgements that were sent are answered with deliveries,
        and none is sent meanwhile. pika cancels before the next start.
        """
        if not self.active or not self._connection.is_open:  # what a closed one held is noted by the consumer
            return
        give_up_s, held = time.monotonic() + STOP_S, -1
        while held != self._held() and time.monotonic() < give_up_s:
            held, until_s = self._held(), time.monotonic() + STILL_S
            while (left_s := until_s - time.monotonic()) > 0:
                self._connection.process_data_events(time_limit=left_s)
        for tag in self._tags:
            self._channel._impl._send_method(Basic.Cancel(consumer_tag=tag, nowait=True))
        self._channel.basic_qos(prefetch_count=self._prefetch)
        self._connection.process_data_events(time_limit=0)
        self.active = False


CONTENT_TYPE: Final = "application/vnd.switchyard+json"
PERSISTENT: Final = 2

_TYPE: Final = CONTENT_TYPE.encode()
_FLAGS: Final = (
    pika.BasicProperties.FLAG_CONTENT_TYPE
    | pika.BasicProperties.FLAG_DELIVERY_MODE
    | pika.BasicProperties.FLAG_CORRELATION_ID
    | pika.BasicProperties.FLAG_MESSAGE_ID
)
_BASIC, _PUBLISH = divmod(Basic.Publish.INDEX, 1 << 16)  # the numbers of a class of AMQP and of a method in it
# Each frame begins with its type, its channel and the bytes of what follows, and ends with a mark.
_METHOD: Final = struct.Struct(">BHI HHHBB")  # class, method, a field that is always 0, no exchange, the queue's length
_HEADER: Final = struct.Struct(f">BHI HHQ HB{len(_TYPE)}sBB")  # class, 0, size; flags, type, mode, length of the number
_BODY: Final = struct.Struct(">BHI")
_PARTS: Final = (FRAME_HEADER, FRAME_BODY)
_END: Final = bytes((FRAME_END,))
_MANDATORY: Final = bytes((1, FRAME_END))  # with the end of its frame


class PublicationFields(pika.BasicProperties):
    """Properties of a new publication: persistent, with the message's id and a number of its own."""

    def __init__(self, message_id: str) -> None:
        super().__init__(
            delivery_mode=PERSISTENT,
            content_type=CONTENT_TYPE,
            message_id=message_id,
            correlation_id=str(time.time_ns()),
        )


class RabbitConnection(pika.SelectConnection):
    """pika's connection with a shorter way for publications and deliveries. All else goes pika's way.

    A publication is one write, where pika has one for each of its frames.
    """

    def _send_message(self, channel_number: int, method_frame: Any, content: tuple[Any, bytes]) -> None:
        fields, body = content
        if isinstance(fields, PublicationFields) and 0 < len(body) <= self._body_max_length:
            self._output_marshaled_frames([frames_of(channel_number, method_frame.routing_key, fields, body)])
        else:
            super()._send_message(channel_number, method_frame, content)

    def _process_frame(self, frame_value: Any) -> None:
        kind = frame_value.frame_type
        if type(frame_value.method) is Basic.Deliver if kind == FRAME_METHOD else kind in _PARTS:
            self.frames_received += 1
            self._deliver_frame_to_channel(frame_value)
        else:
            super()._process_frame(frame_value)


def frames_of(channel: int, queue: str, fields: PublicationFields, body: bytes) -> bytes:
    """Return the frames of a mandatory publication to a queue: method, header, and a body that one frame has room for.

    Their layout is that of AMQP 0-9-1, section 4.2. A text is the byte of its length, and its UTF-8.
    """
    name, number, id_ = queue.encode(), fields.correlation_id.encode(), fields.message_id.encode()
    fields_bytes = 2 + 1 + len(_TYPE) + 1 + 1 + len(number) + 1 + len(id_)
    method = _METHOD.pack(FRAME_METHOD, channel, 9 + len(name), _BASIC, _PUBLISH, 0, 0, len(name))
    size = (FRAME_HEADER, channel, 12 + fields_bytes, _BASIC, 0, len(body))
    header = _HEADER.pack(*size, _FLAGS, len(_TYPE), _TYPE, PERSISTENT, len(number))
    method_frame = (method, name, _MANDATORY)
    header_frame = (header, number, bytes((len(id_),)), id_, _END)
    return b"".join((*method_frame, *header_frame, _BODY.pack(FRAME_BODY, channel, len(body)), body, _END))


CONNECT_S: Final = 2.0
# A server that does not answer for two of these is away.
HEARTBEAT_S: Final = 15
# Sent data that is not acknowledged for that long ends the connection: a network that drops packets is noticed soon.
UNACKNOWLEDGED_MS: Final = 5_000
# An idle connection is not used after this: the server may have closed it, and one more try would be needed.
IDLE_S: Final = 10.0
PUBLISH_S: Final = 2.0
# Longest wait for the answers of one call; without it pika waits for missing heartbeats, up to 40 s. A confirmation
# that waits for a busy disk takes up to 2 s.
ANSWER_S: Final = 5.0
# A queue is missing for so long before it is declared: one that was deleted just now, and is there again when channels
# hear of it, 3.10 consumes from by itself where it is a quorum queue, without a word, and delivers nothing.
DELETED_S: Final = 0.5
LOOK_EVERY_S: Final = 0.1
CLOSE_S: Final = 3.0
USUAL: Final = "check SWITCHYARD_BROKER_URL and that the RabbitMQ server is up, then try again"
NO_RIGHT: Final = "give its user that right: rabbitmqctl set_permissions, see docs/how-to/run-on-rabbitmq.md"
# OpenSSL's code of a refused certificate -> the next step; an authority that is unknown has several codes.
UNTRUSTED: Final = "name the file of the certificate's authority in SSL_CERT_FILE"
OF_CERTIFICATE: Final = {
    10: "renew the server's certificate",
    62: "name a host of the server's certificate in SWITCHYARD_BROKER_URL",
    64: "name an address of the server's certificate in SWITCHYARD_BROKER_URL",
}
# TLS 1.3 servers refuse a client without a certificate after it is connected: pika takes that for another protocol.
OWN_CERTIFICATE: Final = "name a certificate in SWITCHYARD_BROKER_URL, see docs/how-to/run-on-rabbitmq.md"
# Class of pika's or Python's error -> the next step.
OF_CLASS: Final = {
    "ProbableAuthenticationError": "correct user and password in SWITCHYARD_BROKER_URL; on its host: "
    "rabbitmqctl authenticate_user USER PASSWORD",
    "ProbableAccessDeniedError": "correct what stands after the last / of SWITCHYARD_BROKER_URL; on its host: "
    "rabbitmqctl list_vhosts, and rabbitmqctl list_permissions -p VHOST",
    "gaierror": "correct the host in SWITCHYARD_BROKER_URL",
    "SSLError": "name the port for TLS in SWITCHYARD_BROKER_URL, usually 5671; on its host: rabbitmqctl status",
    "IncompatibleProtocolError": "begin SWITCHYARD_BROKER_URL with amqps:// where its port takes TLS, and name a "
    "certificate where it asks for one, see docs/how-to/run-on-rabbitmq.md; on its host: rabbitmqctl status",
}
HELD_TOO_LONG: Final = "set SWITCHYARD_RABBITMQ_CONSUMER_TIMEOUT_S to the server's consumer_timeout, in seconds"
OTHER_TYPE: Final = "name the type that the queues have in SWITCHYARD_RABBITMQ_QUEUES, or drain and delete them first"
# pika raises these for a connection that is gone, or that is not made in time.
AWAY: Final = (AMQPError, AMQPConnectorException, OSError, AssertionError)

logging.getLogger("pika").setLevel(logging.CRITICAL)  # each error is raised as well, and logged where it is handled


def parameters_of(url: str) -> pika.URLParameters:
    """Return connection parameters for ``amqp://`` or ``amqps://``; what its query string sets stays.

    Raises:
        UnusableAddress: pika refuses an option's value, or cannot read a file that it names.
    """
    try:
        parameters = pika.URLParameters(url)
    except (AttributeError, OSError, SyntaxError, TypeError, ValueError) as error:
        fact = f"has an option that pika refuses: {str(error).partition(':')[0]}"  # behind it stand values
        remedy = in_words_of_project("correct it in SWITCHYARD_BROKER_URL, or leave it out")
        raise UnusableAddress(fact, remedy) from error
    given = parse_qs(urlsplit(url).query)
    defaults: dict[str, Any] = {
        "socket_timeout": CONNECT_S,
        "stack_timeout": 2 * CONNECT_S,
        "blocked_connection_timeout": 2 * CONNECT_S,
        "heartbeat": HEARTBEAT_S,
        "connection_attempts": 1,
        "tcp_options": {"TCP_USER_TIMEOUT": UNACKNOWLEDGED_MS},
    }
    for name, value in defaults.items():
        if name not in given:
            setattr(parameters, name, value)
    if urlsplit(url).scheme == "amqps" and "ssl_options" not in given:
        parameters.ssl_options = pika.SSLOptions(ssl.create_default_context(), parameters.host)
    return parameters


def connect(parameters: Any) -> Any:
    """Return a connection; ``BrokerUnavailable`` where the server does not answer."""
    try:
        return pika.BlockingConnection(parameters, _impl_class=RabbitConnection)
    except AWAY as error:
        raise unavailable("a connection", error, outcome="refused") from error


def unavailable(operation: str, error: BaseException, *, outcome: str = "unknown") -> BrokerUnavailable:
    """Return the error for a server that did not answer. pika's errors often have no text."""
    cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return BrokerUnavailable(operation, cause, outcome=outcome, remedy=in_words_of_project(remedy_for(error)))


def remedy_for(error: BaseException) -> str:
    """Return the next step after an error of pika or of Python's ssl."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return OF_CERTIFICATE.get(error.verify_code, UNTRUSTED)
    if isinstance(error, ChannelClosedByBroker) and error.reply_code == ACCESS_REFUSED:
        return NO_RIGHT
    if isinstance(error, ChannelClosedByBroker) and "timed out" in error.reply_text:
        return HELD_TOO_LONG
    if isinstance(error, pika.exceptions.IncompatibleProtocolError) and "SSL" in str(error):
        return OWN_CERTIFICATE
    return OF_CLASS.get(type(error).__name__, USUAL)


def refuse_other_type(error: BaseException) -> None:
    """Raise ``BrokerRefused`` for a queue that exists with other arguments."""
    if isinstance(error, ChannelClosedByBroker) and error.reply_code == PRECONDITION_FAILED:
        cause, remedy = f"{error.reply_code} {error.reply_text}", in_words_of_project(OTHER_TYPE)
        raise BrokerRefused("a declaration", cause, remedy=remedy) from error


@contextmanager
def answers_within(connection: Any, seconds: float) -> Iterator[None]:
    """End a connection whose server does not answer in time: the block then raises one of :data:`AWAY`."""
    if not connection.is_open:
        yield
        return
    stream = connection._impl
    error = AMQPHeartbeatTimeout(f"no answer within {seconds:g} s")
    timer = stream._adapter_call_later(seconds, partial(stream._terminate_stream, error))
    try:
        yield
    finally:
        stream._adapter_remove_timeout(timer)


def disconnect(connection: Any) -> bool:
    """Close a connection, and return whether the server has confirmed that; after 3 s it is given up."""
    try:
        with answers_within(connection, CLOSE_S):
            connection.close()
    except AWAY:
        return False
    return True


class _Line:
    """A connection with its channel.

    It is ended when a call, begun at ``asked_s``, waits for an answer for longer than ``within_s``. A timer of each
    call would be a tenth of what a publish costs: one looks ten times a second while a call waits.
    """

    def __init__(self, connection: Any, channel: Any) -> None:
        self.connection, self.channel = connection, channel
        self.asked_s, self.within_s, self.used_s = math.inf, 0.0, time.monotonic()
        self._stream = connection._impl
        self._look()

    def _look(self) -> None:
        if time.monotonic() > self.asked_s + self.within_s:
            self._stream._terminate_stream(AMQPHeartbeatTimeout(f"no answer within {self.within_s:g} s"))
        else:
            self._stream._adapter_call_later(LOOK_EVERY_S, self._look)


class Publishers:
    """Channels in confirm mode, shared by the threads of a process: each has one for as long as a call takes."""

    def __init__(self, parameters: Any, *, answer_s: float = ANSWER_S) -> None:
        self._parameters, self.answer_s = parameters, answer_s
        self._idle: deque[_Line] = deque()
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def publish(self, queue: str, body: bytes, properties: Any, *, declare: Callable[[Any], object]) -> None:
        """Publish a message into a queue and wait until the server has confirmed it; ``declare`` makes a missing queue.

        Raises:
            BrokerUnavailable: the server was away for 2 s, or did not answer for 5 s. The message may be there, unless
                no connection was made: the outcome is ``refused`` then.
            BrokerRefused: the server has a queue of that name with other arguments.
        """
        give_up_s, outcome = time.monotonic() + PUBLISH_S, "refused"
        while True:
            sent = False
            try:
                with self.channel() as channel:
                    sent = True
                    try:
                        channel.basic_publish("", queue, body, properties, mandatory=True)
                    except UnroutableError:
                        time.sleep(DELETED_S)
                        declare(channel)
                        channel.basic_publish("", queue, body, properties, mandatory=True)
                    return
            except NackError as error:  # of a server that starts, or is busy; it is an AMQPError as well
                if time.monotonic() >= give_up_s:
                    fact = f"queue {queue} rejected the message"
                    raise BrokerUnavailable("a publish", fact, outcome=outcome, remedy=USUAL) from error
            except AWAY as error:
                outcome = "unknown" if sent else outcome
                if time.monotonic() >= give_up_s:
                    raise unavailable("a publish", error, outcome=outcome) from error
            time.sleep(0.05)

    def channel(self, *, within_s: float = 0.0) -> _Loan:
        """Lend a channel to a block, with a time for all answers.

        After an error it is not used again: an answer may still be on its way. After a rejection neither: in a cluster
        a channel may take a node that is away for the leader of a quorum queue, and rejects every message for that
        queue. ``BrokerRefused`` where the server has a queue with other arguments.
        """
        return _Loan(self, within_s or self.answer_s)

    def keep(self, line: _Line) -> None:
        line.asked_s, line.used_s = math.inf, time.monotonic()
        with self._lock:
            self._idle.append(line)

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, deque()
        if self._pid == os.getpid():
            _disconnect_all(idle)

    def take(self) -> _Line:
        """Return a connection that no other thread uses from now on."""
        old: list[_Line] = []
        with self._lock:
            if self._pid != os.getpid():  # a fork: the connections are the parent's
                self._idle, self._pid = deque(), os.getpid()
            found = self._idle.pop() if self._idle else None
            while self._idle and self._idle[0].used_s < time.monotonic() - IDLE_S:
                old.append(self._idle.popleft())
            if found is not None and found.used_s < time.monotonic() - IDLE_S:
                old.append(found)
                found = None
        if old:
            _disconnect_all(old)
        if found is not None:
            return found
        connection = pika.BlockingConnection(self._parameters, _impl_class=RabbitConnection)
        try:
            with answers_within(connection, self.answer_s):
                channel = connection.channel()
                channel.confirm_delivery()
        except BaseException:
            disconnect(connection)
            raise
        return _Line(connection, channel)


class _Loan:
    """A channel for a block. A context manager of :mod:`contextlib` makes five calls more, of those before a send."""

    def __init__(self, publishers: Publishers, within_s: float) -> None:
        self._publishers, self._within_s = publishers, within_s

    def __enter__(self) -> Any:
        self._line = line = self._publishers.take()
        line.asked_s, line.within_s = time.monotonic(), self._within_s
        return line.channel

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self._publishers.keep(self._line)
            return
        disconnect(self._line.connection)
        refuse_other_type(error)


def _disconnect_all(lines: Iterable[_Line]) -> None:
    """Close connections; after one whose server does not answer, leave the others to the garbage collection."""
    for line in lines:
        if line.connection.is_open and not disconnect(line.connection):
            return
