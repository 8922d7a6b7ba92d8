from collections.abc import Iterator

import dramatiq
import pytest


@pytest.fixture(autouse=True)
def own_actors() -> Iterator[None]:
    """Forget the actors that a how-to has declared."""
    actors = dramatiq.get_broker().actors
    before = dict(actors)
    yield
    actors.clear()
    actors.update(before)
