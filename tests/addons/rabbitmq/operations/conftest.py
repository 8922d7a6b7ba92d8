"""A server that would drop work."""

from __future__ import annotations

from tests.integration.operations.test_server_state import evicting as evicting
