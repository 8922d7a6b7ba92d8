"""Messages that follow an attempt: callbacks, and the message after the last retry."""

from __future__ import annotations

import traceback
import uuid
from typing import Any, Final

from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message

from switchyard.broker.queue.codec import as_sent
from switchyard.middleware.outcomes import attempt

DEEPEST_TRACEBACK: Final = 30
_NAMESPACE: Final = uuid.UUID("1c7a5f0e-6d8f-5b0a-9f5e-52a7e0f1d0c4")


def follow_up_of(
    broker: Broker, message: MessageProxy, target: str, option: str, args: tuple[Any, ...]
) -> Message[Any]:
    """Return the message of an option that names an actor, such as ``on_success``.

    Its id follows from job, attempt and option: when a worker dies before it acknowledges the job, the repetition
    sends the same id again, and the broker enqueues it once. A message for an actor that this code does not have goes
    to the job's queue, where a newer worker runs it.
    """
    known = broker.actors.get(target)
    generation = message.options.get("generation", 0)
    id_ = str(uuid.uuid5(_NAMESPACE, f"{message.message_id} {generation} {attempt(message)} {option}"))
    if known is not None:
        return known.message(*args).copy(message_id=id_)
    return Message(broker.actors[message.actor_name].queue_name, target, args, {}, {}, message_id=id_)


def fields_of(message: MessageProxy) -> dict[str, Any]:
    """Return the fields of a message as Dramatiq passes them to what follows it, with its arguments as it came."""
    sent = as_sent(message)
    return {**message.asdict(), "args": sent.args, "kwargs": sent.kwargs}


def traceback_of(exception: BaseException | None) -> str:
    """Return the traceback of a failure as Dramatiq writes it into a message."""
    return "" if exception is None else "".join(traceback.format_exception(exception, limit=DEEPEST_TRACEBACK))
