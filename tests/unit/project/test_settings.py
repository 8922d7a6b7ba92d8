"""Settings that follow from the environment, read by a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PRINT = """
from project import settings as found
options = found.DATABASES["default"]["OPTIONS"]
print(found.EMAIL_USE_TLS, found.EMAIL_USE_SSL, options["connect_timeout"], options["options"])
"""


@pytest.mark.parametrize(
    ("url", "query", "printed"),
    [
        ("smtp://127.0.0.1:8025", "", "False False 5"),
        ("smtp://user:password@mail.example:587", "?connect_timeout=2", "True False 2"),
        ("smtps://user:password@mail.example", "", "False True 5"),
    ],
)
def test_no_password_goes_over_an_open_line_and_nobody_waits_for_a_database_for_ever(
    url: str, query: str, printed: str
) -> None:
    database = f"postgresql://yard:word@127.0.0.1/yard{query}"
    environment = os.environ | {"SWITCHYARD_SMTP_URL": url, "DATABASE_URL": database}

    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.startswith(f"{printed} -c lock_timeout=5s ")
