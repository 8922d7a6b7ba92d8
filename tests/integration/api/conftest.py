"""A user with a token."""

from __future__ import annotations

import pytest

from switchyard.api.tokens import create_token
from tests.factories.callers import api_user


@pytest.fixture
def bearer(transactional_db: None) -> dict[str, str]:
    """Headers with a token that may do everything."""
    user = api_user("ada")
    _, plain = create_token(owner=user, scopes=["submit", "read", "operate"], name="test")
    return {"Authorization": f"Bearer {plain}"}
