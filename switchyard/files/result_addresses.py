"""Address of the store of results: the broker, the database, a bucket, or a class of the project's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from switchyard.files.addresses import StorageAddress
from switchyard.files.declared import usable_address_of
from switchyard.setting_values import InvalidSetting

KINDS: Final = ("broker", "database", "s3", "gs", "class")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True, slots=True)
class ResultsAddress:
    """A validated address.

    Args:
        kind: One of :data:`KINDS`; also the store's name in records.
        bucket: Address of ``s3`` and ``gs``.
        path: Dotted path of ``class``.
    """

    kind: str = "broker"
    bucket: StorageAddress | None = None
    path: str = ""


def results_of(name: str, value: str) -> ResultsAddress:
    """Return the validated address of the store of results; "" is the broker.

    Raises:
        InvalidSetting: no such store, or an unusable bucket.
    """
    kind, _, rest = value.partition(":")
    if kind == "cassandra":
        remedy = "write a class with put and get, and name it: class:mysite.results.CassandraResults"
        raise InvalidSetting(name, "cassandra: is not supported", remedy)
    if value and kind not in KINDS:
        fact = f"{kind!r:.40} is none of {', '.join(KINDS)}"
        raise InvalidSetting(name, fact, "use for example database: or s3://bucket/prefix?region=eu-central-1")
    if kind in ("s3", "gs"):
        return ResultsAddress(kind, usable_address_of(name, value))
    if kind == "class":
        if _DOTTED.fullmatch(rest) is None:
            raise InvalidSetting(name, "names no class", "use for example class:mysite.results.MyResults")
        return ResultsAddress(kind, path=rest)
    if rest:
        raise InvalidSetting(name, f"has more than {kind}: needs", f"write {kind}:")
    return ResultsAddress(kind or "broker")
