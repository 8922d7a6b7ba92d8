"""The entry of ``DATABASES`` for each kind of address."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.database import declared, is_direct

URL = "postgresql://yard:word@db/yard"
FOLDER = Path("/var/lib/yard")


def test_a_server_has_a_timeout_for_locks_and_no_pool() -> None:
    entry = declared(URL, bounced=False, state_dir=FOLDER)

    assert entry["OPTIONS"]["options"] == (
        "-c lock_timeout=5s -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3"
        " -c tcp_user_timeout=20s"
    )
    assert "pool" not in entry["OPTIONS"]
    assert "pool" not in declared(f"{URL}?pool=0", bounced=False, state_dir=FOLDER)["OPTIONS"]
    assert not entry["DISABLE_SERVER_SIDE_CURSORS"]


def test_a_pool_is_checked_and_gives_up_soon() -> None:
    entry = declared(f"{URL}?pool=12", bounced=False, state_dir=FOLDER)

    pool = entry["OPTIONS"]["pool"]
    assert (pool["min_size"], pool["max_size"]) == (0, 12)
    assert pool["timeout"] <= 5 and pool["reconnect_timeout"] <= 5
    assert (entry["CONN_MAX_AGE"], entry["CONN_HEALTH_CHECKS"]) == (0, True)


def test_a_bouncer_gets_neither_start_up_options_nor_cursors_on_the_server() -> None:
    entry = declared(URL, bounced=True, state_dir=FOLDER)

    assert "options" not in entry["OPTIONS"]
    assert entry["OPTIONS"]["connect_timeout"] == 5
    assert entry["DISABLE_SERVER_SIDE_CURSORS"]


def test_options_that_somebody_wrote_for_a_bouncer_are_left_for_the_check_to_refuse() -> None:
    entry = declared(f"{URL}?options=-c%20lock_timeout%3D1s&pool=3", bounced=True, state_dir=FOLDER)

    assert entry["OPTIONS"]["options"] == "-c lock_timeout=1s"
    assert entry["OPTIONS"]["pool"]["max_size"] == 3


@pytest.mark.parametrize(
    ("line", "direct"),
    [("manage.py migrate --noinput", True), ("manage.py switchyard runpool urgent", False), ("manage.py", False)],
)
def test_commands_of_the_schema_go_past_the_bouncer(line: str, direct: bool) -> None:
    assert is_direct(line.split()) is direct
