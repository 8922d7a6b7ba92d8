"""The ledger of what workers did."""

from __future__ import annotations

from tests.chaos.conftest import ledger as ledger
