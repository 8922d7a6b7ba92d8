"""Users of the queues' pages."""

import pytest

from tests.factories.staff import log_in, staff


@pytest.fixture
def watcher(transactional_db):
    """A staff user who may see the operations room."""
    return staff("view_operations", name="watcher")


@pytest.fixture
def operator(transactional_db):
    """A staff user who may pause and purge as well."""
    return staff("view_operations", "pause_queue", "purge_queue", name="operator")


@pytest.fixture
def superuser(transactional_db):
    return log_in()
