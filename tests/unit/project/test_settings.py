"""Settings that follow from the environment, read by a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PRINT = "from project import settings as s; print(s.EMAIL_USE_TLS, s.EMAIL_USE_SSL)"

PRINT_WAITS = (
    "from project import settings; found = settings.DATABASES['default']['OPTIONS']; "
    "print(found['connect_timeout'], found['options'])"
)


@pytest.mark.parametrize(
    ("url", "printed"),
    [
        ("smtp://127.0.0.1:8025", "False False"),
        ("smtp://user:password@mail.example:587", "True False"),
        ("smtps://user:password@mail.example", "False True"),
    ],
)
def test_no_mail_servers_password_goes_over_an_open_line(url: str, printed: str) -> None:
    environment = os.environ | {"SWITCHYARD_SMTP_URL": url}

    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == printed


@pytest.mark.parametrize(("query", "connect_timeout"), [("", "5"), ("?connect_timeout=2", "2")])
def test_nobody_waits_for_a_database_for_ever(query: str, connect_timeout: str) -> None:
    environment = os.environ | {"DATABASE_URL": f"postgresql://yard:word@127.0.0.1/yard{query}"}

    done = subprocess.run(
        [sys.executable, "-c", PRINT_WAITS], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith(f"{connect_timeout} -c lock_timeout=5s ")
