"""Users with tokens, and clients of the API that act for them."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from switchyard.api.tokens import create_token
from switchyard.jobs.services import submit
from tests.factories.callers import api_user
from tests.factories.web import serving
from tests.integration.jobs import probe_actors


@pytest.fixture(autouse=True)
def fresh_yard(facilities):
    """Start with an empty broker and actors that wait."""
    probe_actors.go_on.clear()


@pytest.fixture(scope="module")
def web(django_db_setup, django_db_blocker):
    """The address of the project's web, in this process."""
    with django_db_blocker.unblock():
        from project.asgi import application  # its checks ask the database

    with serving(application) as address:
        yield address


@pytest.fixture
def ada(transactional_db):
    return api_user("ada")


@pytest.fixture
def own_job(ada):
    """A job of Ada's that waits."""
    return submit(probe_actors.add, owner=f"user:{ada.pk}", kwargs={"a": 1, "b": 2})


@pytest.fixture
def headers(ada):
    """Headers with a new token: ``headers("read", user=…)``."""

    def make(*scopes: str, user: User | None = None) -> dict[str, str]:
        _, plain = create_token(owner=user or ada, scopes=scopes or ("submit", "read"), name="test")
        return {"Authorization": f"Bearer {plain}"}

    return make


@pytest.fixture
def api(headers):
    """A client of the API with Ada's token."""
    return Client(headers=headers())
