import dramatiq
import pytest


@pytest.fixture(autouse=True)
def own_actors():
    """Forget the actors that a how-to has declared."""
    actors = dramatiq.get_broker().actors
    before = dict(actors)
    yield
    actors.clear()
    actors.update(before)
