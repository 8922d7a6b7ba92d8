"""Calls of one operation with several sets of keys in one round trip: queue families are on different nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.scripts import Script

Call = tuple[Sequence[str], Sequence[Word]]


def call_together(
    calls: RedisCalls,
    operation: Script,
    batches: Sequence[Call],
    *,
    commands: Sequence[Sequence[Word]] = (),
    partly: bool = False,
) -> list[Any]:
    """Run an operation that may be repeated once for each set of keys and arguments, and return the answers in order.

    Raises as :meth:`switchyard.broker.redis.calls.RedisCalls.call`, for the first call that failed. The others were
    run.

    Args:
        commands: Plain commands that travel along; their answers follow. Their errors are returned, not raised.
        partly: Return the ``BrokerUnavailable`` of a node that does not answer in place of its answers as well.
    """
    by_name = [("EVALSHA", operation.sha, len(keys), *keys, *args) for keys, args in batches]
    answers = calls.pipeline([*by_name, *commands], raise_errors=False)
    if any(isinstance(answer, BrokerError) and isinstance(answer.__cause__, NoScriptError) for answer in answers):
        # A server knows it for all calls or for none.
        whole = [("EVAL", operation.text, len(keys), *keys, *args) for keys, args in batches]
        answers[: len(batches)] = calls.pipeline(whole, raise_errors=False)
    for answer in answers[: len(batches)]:
        if isinstance(answer, BrokerError) and not (partly and isinstance(answer, BrokerUnavailable)):
            raise answer
    return answers
