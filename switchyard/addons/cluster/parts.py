"""Hash tags that lie 512 hash slots apart: a cluster has a keyspace marker under each, so that every master has one.

A marker moves with its hash slot. A master that holds 512 slots in a row holds at least one of them.
"""

from __future__ import annotations

from typing import Final

# The smallest numbers with these hash slots: 0, 512, 1024 and so on.
PARTS: Final = (
    "3560", "1768", "22069", "20261", "48576", "18360", "11467", "41271", "4129", "3453", "130", "11199", "1296",
    "29098", "41342", "8591", "8209", "265", "3706", "45842", "2821", "13409", "48710", "17891", "356", "46093",
    "45971", "3635", "16248", "2912", "4782", "48623",
)  # fmt: skip
