"""Calls of other task libraries on actors and messages: each is refused with what to write instead."""

from __future__ import annotations

from typing import Any, NoReturn

from dramatiq.actor import Actor
from dramatiq.message import Message

# Name -> what to write instead, behind the actor's name.
FOREIGN_CALLS = {
    "delay": ".send(...), with the same arguments",
    "apply_async": ".send_with_options(args=(...), kwargs={...}, delay=10_000), with the delay in milliseconds",
    "apply": "(...), which runs it here",
    "s": ".message(...), and dramatiq.pipeline or group of such messages",
    "si": ".message_with_options(args=(...), pipe_ignore=True)",
    "delay_on_commit": ".send(...) in transaction.on_commit, or enqueue_on_commit(...) of switchyard.jobs.services",
    "apply_async_on_commit": ".send_with_options(...) in transaction.on_commit",
    "enqueue": ".send(...), with the same arguments",
    # Dramatiq calls it on each step of a pipeline.
    "copy": ".message(...), of which pipelines and groups are made",
}

RESULT = ".get_result(block=True, timeout=3_000), in milliseconds"
PROGRESS = (
    ".get_result(), which raises ResultMissing until there is one; manage.py switchyard jobs show says a job's state"
)

# The same of what ``send`` returns, behind the message.
FOREIGN_MESSAGE_CALLS = {
    "get": RESULT,
    "wait": RESULT,
    "result": RESULT,
    "id": ".message_id",
    "ready": PROGRESS,
    "status": PROGRESS,
    "state": PROGRESS,
}


class ForeignCall:
    """Attribute of ``Actor`` or ``Message`` that does not exist, so that ``hasattr`` is false, and says what does.

    On the class, because Dramatiq's decorator is used as it is and makes actors of no other class. An attribute that
    exists is found without it.
    """

    def __init__(self, name: str, remedy: str) -> None:
        self._name, self._remedy = name, remedy

    def __get__(self, owner: Actor[..., Any] | Message[Any] | None, kind: type) -> NoReturn:
        """Refuse the attribute.

        Raises:
            AttributeError: always; with what to write instead.
        """
        if owner is None:
            raise AttributeError(f"type object {kind.__name__!r} has no attribute {self._name!r}")
        name = owner.actor_name
        subject, before = (f"actor {name}", name) if isinstance(owner, Actor) else (f"message of {name}", "")
        # Without the object, in which Python looks for a name to suggest: it would find those refused here.
        raise AttributeError(f"{subject} has no {self._name!r}: write {before}{self._remedy}", name=self._name)


def explain_foreign_calls() -> None:
    """Let every actor and message answer calls of other libraries with what to write instead.

    Attributes that exist stay.
    """
    for kind, calls in ((Actor, FOREIGN_CALLS), (Message, FOREIGN_MESSAGE_CALLS)):
        for name, remedy in calls.items():
            if name not in vars(kind):
                setattr(kind, name, ForeignCall(name, remedy))
