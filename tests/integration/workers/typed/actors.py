"""The actors, declared. Their types load Hypothesis, which no other process of the bench pays for."""

from __future__ import annotations

from tests.integration.workers.typed.arguments import declare

declare()
