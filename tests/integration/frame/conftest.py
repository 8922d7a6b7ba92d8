import pytest

from tests.factories.staff import staff


@pytest.fixture
def watcher(db):
    """A logged-in staff user who may see the overview, and nothing else."""
    return staff("view_operations", name="watcher")
