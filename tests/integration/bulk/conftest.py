from typing import Any

import dramatiq
import pytest

from switchyard.audit.services import Who
from switchyard.bulk import runner, services
from switchyard.bulk.models import BulkAct

WHO = Who("a.lind", "page")


@pytest.fixture
def fail_always(facilities):
    """An actor of the real yard."""

    @dramatiq.actor(actor_name="fail_always", queue_name="default", max_retries=0)
    def fail_always(number: int = 7) -> None:
        raise KeyError("vat_rate")

    return fail_always


@pytest.fixture
def start(db, facilities):
    """Start a bulk act as a person does."""

    def act(kind: str, filter: dict[str, Any], **details: Any) -> BulkAct:
        return services.start(kind, filter, **({"who": WHO} | details))

    return act


def finished(act: BulkAct) -> BulkAct:
    """Take every step of an act, as the scheduler does, and return it at its end."""
    act.refresh_from_db()
    while runner.take_step(act.pk, act.run) is not None:
        pass
    act.refresh_from_db()
    return act


@pytest.fixture
def finish(db):
    return finished
