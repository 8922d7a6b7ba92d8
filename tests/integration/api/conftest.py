"""A user with a token."""

import pytest

from switchyard.api.tokens import create_token
from tests import same_examples as same_examples
from tests.factories.callers import api_user


def pytest_configure(config: pytest.Config) -> None:
    """Load Schemathesis here alone: it takes a second, and pyproject.toml keeps every run from loading it."""
    config.pluginmanager.import_plugin("schemathesis.pytest.plugin")


@pytest.fixture
def bearer(transactional_db):
    """Headers with a token that may do everything."""
    user = api_user("ada")
    _, plain = create_token(owner=user, scopes=["submit", "read", "operate"], name="test")
    return {"Authorization": f"Bearer {plain}"}
