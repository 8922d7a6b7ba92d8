from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Permission, User

from tests.factories.letters import keep, letter
from tests.factories.staff import client_of


@pytest.fixture
def fail_always(facilities):
    """An actor of the real yard that always fails, at once and for good."""

    @dramatiq.actor(actor_name="fail_always", queue_name="default", max_retries=0, redact=("address",))
    def fail_always(number: Any = 7, address: str = "") -> None:
        raise KeyError("vat_rate")

    return fail_always


@pytest.fixture
def bury(facilities, fail_always):
    """Put a letter into its dead list, as a worker does, without its row."""
    return lambda **changes: keep(letter(**changes))


@pytest.fixture
def operator(db):
    """A staff user with every right on dead letters, who may view arguments."""
    user = User.objects.create_user("a.lind", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="switchyard_dead_letters"))
    user.user_permissions.add(Permission.objects.get(codename="view_arguments"))
    return user


@pytest.fixture
def client(operator):
    return client_of(operator)
