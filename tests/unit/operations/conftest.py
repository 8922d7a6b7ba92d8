import dataclasses
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import override_settings

from switchyard.operations.findings.lateness import SAMPLED
from tests.unit.operations.yards import YARD


@pytest.fixture
def small_yard() -> Iterator[None]:
    """The project declares the small yard, and no queue was late before."""
    SAMPLED.clear()
    with override_settings(SWITCHYARD=dataclasses.replace(settings.SWITCHYARD, topology=YARD)):
        yield
    SAMPLED.clear()
