"""Calls of other task libraries on actors: each is refused with what to write instead."""

from __future__ import annotations

from typing import Any, NoReturn

from dramatiq.actor import Actor

# Name -> what to write instead, behind the actor's name.
FOREIGN_CALLS = {
    "delay": ".send(...), with the same arguments",
    "apply_async": ".send_with_options(args=(...), kwargs={...}, delay=10_000), with the delay in milliseconds",
    "apply": "(...), which runs it here",
    "s": ".message(...), and dramatiq.pipeline or group of such messages",
    "si": ".message_with_options(args=(...), pipe_ignore=True)",
    "delay_on_commit": ".send(...) in transaction.on_commit, or enqueue_on_commit(...) of apps.platform.jobs.services",
    "apply_async_on_commit": ".send_with_options(...) in transaction.on_commit",
    "enqueue": ".send(...), with the same arguments",
}


class ForeignCall:
    """Attribute of ``Actor`` that does not exist, so that ``hasattr`` is false, and says what does.

    On the class, because Dramatiq's decorator is used as it is and makes actors of no other class.
    """

    def __init__(self, name: str, remedy: str) -> None:
        self._name, self._remedy = name, remedy

    def __get__(self, actor: Actor[..., Any] | None, owner: type) -> NoReturn:
        """Refuse the attribute.

        Raises:
            AttributeError: always; with what to write instead.
        """
        if actor is None:
            raise AttributeError(f"type object {owner.__name__!r} has no attribute {self._name!r}")
        name = actor.actor_name
        raise AttributeError(
            f"actor {name} has no {self._name!r}: write {name}{self._remedy}", name=self._name, obj=actor
        )


def explain_foreign_calls() -> None:
    """Let every actor answer calls of other libraries with what to write instead. Attributes that exist stay."""
    for name, remedy in FOREIGN_CALLS.items():
        if name not in vars(Actor):
            setattr(Actor, name, ForeignCall(name, remedy))
