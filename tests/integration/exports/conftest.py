from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def storage(settings, tmp_path):
    """A storage folder of the test's own."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return settings.MEDIA_ROOT
