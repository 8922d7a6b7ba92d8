"""Each actor of a product has a test that runs it again after a crash, with redelivered()."""

from __future__ import annotations

from pathlib import Path

import dramatiq
from django.conf import settings


def test_every_actor_of_a_product_is_repeated_in_a_test() -> None:
    folder = Path(settings.BASE_DIR) / "tests/integration"
    missing = []
    for name, actor in dramatiq.get_broker().actors.items():
        root, _, app = actor.fn.__module__.removesuffix(".actors").rpartition(".")
        tests = folder / app / "test_repeating.py"
        if root == "apps" and not (tests.exists() and name in tests.read_text(encoding="utf-8")):
            missing.append(f"{name}: {tests.relative_to(folder)}")

    assert missing == []
