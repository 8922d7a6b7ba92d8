"""A watch over every call of this process: on a cluster the keys of one call are on one node, so they share a slot."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis.crc import key_slot

from switchyard.broker.redis.calls import RedisCalls

# A single server has one marker for all queues, without a hash tag; a cluster has several, one call for each.
OF_ONE_SERVER = ("generation_make", "generation_accept")
SEVERAL_KEYS = ("MGET", "DEL", "UNLINK", "EXISTS")


class SpreadKeys(AssertionError):
    """Keys of one call have different hash tags: on a cluster they would be on different nodes."""


def require_one_slot(name: str, keys: Sequence[Any]) -> None:
    """Refuse keys of more than one hash slot.

    Raises:
        SpreadKeys: they have several.
    """
    if not any("{" in str(key) for key in keys):
        return  # of a family that a test made by itself
    if (
        len({key_slot(key if isinstance(key, bytes) else str(key).encode()) for key in keys}) > 1
        and name not in OF_ONE_SERVER
    ):
        raise SpreadKeys(f"{name}: {', '.join(map(str, keys))}")


def keys_of(words: Sequence[Any]) -> Sequence[Any]:
    """Return all keys of a command that may have several."""
    if words[0] in ("EVAL", "EVALSHA"):
        return words[3 : 3 + words[2]]
    return words[1:] if words[0] in SEVERAL_KEYS else ()


def watch_calls(patch: pytest.MonkeyPatch) -> None:
    """Refuse every call whose keys span hash slots, on the single server of a test too."""
    call, stream, command, pipeline = RedisCalls.call, RedisCalls.stream, RedisCalls.command, RedisCalls.pipeline

    def checked_call(self: RedisCalls, operation: Any, keys: Any, *args: Any, **options: Any) -> Any:
        require_one_slot(operation.name, keys)
        return call(self, operation, keys, *args, **options)

    def checked_stream(self: RedisCalls, operation: Any, calls: Any, **options: Any) -> Any:
        def checked() -> Iterator[Any]:
            for keys, args in calls:
                require_one_slot(operation.name, keys)
                yield keys, args

        return stream(self, operation, checked(), **options)

    def checked_command(self: RedisCalls, *words: Any, **options: Any) -> Any:
        require_one_slot(str(words[0]), keys_of(words))
        return command(self, *words, **options)

    def checked_pipeline(self: RedisCalls, commands: Any, **options: Any) -> Any:
        for words in commands:
            require_one_slot(str(words[0]), keys_of(words))
        return pipeline(self, commands, **options)

    patch.setattr(RedisCalls, "call", checked_call)
    patch.setattr(RedisCalls, "stream", checked_stream)
    patch.setattr(RedisCalls, "command", checked_command)
    patch.setattr(RedisCalls, "pipeline", checked_pipeline)
