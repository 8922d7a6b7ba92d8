"""Change of a message that has not started: its arguments, and the due time of a scheduled one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from dramatiq.message import Message

from switchyard.broker.interface import Arguments
from switchyard.broker.queue import administration, codec
from switchyard.broker.queue.operations import QueueOperations

Answer = Literal["amended", "started", "waiting", "changed", "unknown"]
# Answers of the script that are final; after the others it is called anew, with what is there now.
_ANSWERS: Final[dict[int, Answer]] = {1: "amended", 0: "started", -1: "unknown", -4: "waiting"}


def amend(
    families: Sequence[QueueOperations],
    message_id: str,
    *,
    expected: Arguments,
    arguments: Arguments,
    due_at_ms: int | None = None,
) -> Answer:
    """Give a message that waits or is scheduled other arguments, and a scheduled one another due time, in one step.

    Its options, and with them its unique key, stay as they are. After ``BrokerUnavailable`` it may be changed.

    Args:
        families: Of the queues that may hold it.
        expected: Arguments that it has; with others it was changed meanwhile, and stays so.
        arguments: JSON values.
        due_at_ms: ms since the epoch; ``None`` to leave it.

    Returns:
        ``amended``; ``started``: a worker holds it; ``waiting``: it has no due time to change any more; ``changed``: it
        has other arguments than ``expected``; ``unknown``: no queue has it, or it cannot be read.
    """
    for family in families:
        while (as_read := family.calls.command("HGET", family.keys.bodies, message_id)) is not None:
            try:
                message = codec.decode(as_read, message_id=message_id, lane=family.keys.queue)
            except codec.UnreadableMessage:
                return "unknown"
            if (list(message.args), message.kwargs) != (list(expected[0]), dict(expected[1])):
                return "changed"
            body = codec.encode(_amended(message, arguments, due_at_ms), grown=True)
            found = administration.amend(family, message_id, as_read=as_read, body=body, due_at_ms=due_at_ms)
            if (answer := _ANSWERS.get(found)) is not None:
                return answer
    return "unknown"


def _amended(message: Message[Any], arguments: Arguments, due_at_ms: int | None) -> Message[Any]:
    args, kwargs = arguments
    options = message.options if due_at_ms is None else {**message.options, "due_at": due_at_ms}
    return message.copy(args=tuple(args), kwargs=kwargs, options=options)
