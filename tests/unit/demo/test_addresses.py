"""Ports and environment of the demo's parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from demo import addresses
from demo.addresses import Addresses, PortTaken, as_exports, settings_for, without_settings
from demo.state import StateFolder, load_identity, write_private_text
from project.config import BASE_DIR
from project.config import load as load_config

ADDRESSES = Addresses(web_port=8001, smtp_port=8002, receiver_port=8003, broker_url="redis://127.0.0.1:8004/0")


def test_children_reach_exactly_the_demos_own_parts(tmp_path: Path) -> None:
    identity = load_identity(tmp_path / "none")

    config = load_config(settings_for(StateFolder(tmp_path), identity, ADDRESSES))

    assert config.allowed_private_addresses == {("127.0.0.1", 8003)}
    assert config.library.broker_url == ADDRESSES.broker_url
    assert config.smtp_url == "smtp://127.0.0.1:8002"
    assert config.library.public_url == "http://127.0.0.1:8001"
    assert config.payment_secret == identity.payment_secret
    assert config.secret_key == identity.django_secret_key
    assert config.library.alert_urls == ("log:", "mailto:operations@switchyard.example")
    assert config.database_url == f"sqlite:///{tmp_path}/db.sqlite3"
    assert config.storage.folder == f"{tmp_path}/media"
    assert config.library.state_dir == tmp_path


def test_a_shell_takes_the_settings_over(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    write_private_text(file, as_exports({"A": "it's $HOME", "B": "log: mailto:x"}))

    ran = subprocess.run(["sh", "-c", f'. {file}; printf \'%s|%s\' "$A" "$B"'], capture_output=True, text=True)

    assert ran.stdout == "it's $HOME|log: mailto:x"
    assert file.stat().st_mode & 0o777 == 0o600


def test_settings_of_another_yard_do_not_leak_in() -> None:
    base = {"PATH": "/bin", "DJANGO_DEBUG": "0", "SWITCHYARD_METRICS_TOKEN": "x", "DATABASE_URL": "postgres://other"}

    assert without_settings(base) == {"PATH": "/bin"}


def test_retries_are_hurried_here_and_not_in_the_projects_settings() -> None:
    code = "from demo.settings import SWITCHYARD as a; from project.settings import SWITCHYARD as b; "
    code += "print(a.topology.retry_speed, b.topology.retry_speed)"

    done = subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, capture_output=True, text=True, check=True)

    assert done.stdout.split() == [str(addresses.RETRY_SPEED), "1"]


def test_another_terminal_needs_no_more_than_the_state_folder(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)

    config = load_config({"SWITCHYARD_STATE_DIR": str(tmp_path)})

    assert config.library.broker_url == f"unix://{state.broker_socket}"
    assert config.database_url == f"sqlite:///{state.database}"
    assert config.storage.folder == str(state.media)


def test_port_that_is_taken_is_refused_with_the_way_out() -> None:
    with addresses.listen(0) as taken, pytest.raises(PortTaken, match="--port"):
        addresses.listen(addresses.port_of(taken))


def test_next_free_port_follows_one_that_is_taken() -> None:
    with addresses.listen(0) as taken:
        first = addresses.port_of(taken)

        with addresses.listen_near(first) as found:
            assert first < addresses.port_of(found) <= first + addresses.NEXT_PORTS


def test_port_of_last_time_is_taken_again_where_it_is_free() -> None:
    with addresses.listen(0) as last:
        port = addresses.port_of(last)
    with addresses.listen_near(port, next_ports=1) as again, addresses.listen_near(port, next_ports=1) as other:
        assert addresses.port_of(again) == port
        assert addresses.port_of(other) != port


def test_port_for_a_server_that_chooses_itself_is_zero_when_taken() -> None:
    with addresses.listen(0) as taken:
        port = addresses.port_of(taken)

        assert addresses.free_again(port) == 0
    assert addresses.free_again(port) == port
    assert addresses.free_again(0) == 0
