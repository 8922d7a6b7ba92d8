"""The address of RabbitMQ and the settings beside it: what is unusable is refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from switchyard.operations.findings.lateness import none_late
from switchyard.setting_values import InvalidSetting
from tests.addons.rabbitmq.yards import settings_of
from tests.unit.platform.test_conf import read
from tests.unit.platform.test_missing_packages import check_without

BESIDE = {"SWITCHYARD_REDIS_URL": "redis://127.0.0.1:6379/0"}


def test_rabbitmq_is_the_broker_and_redis_stands_beside_it() -> None:
    found = read({}, {**BESIDE, "SWITCHYARD_BROKER_URL": "amqp://127.0.0.1:5672/"}, debug=False)

    assert (found.place_url, found.broker_url) == ("amqp://127.0.0.1:5672/", "redis://127.0.0.1:6379/0")
    assert found.place_options == {"queue_type": "quorum", "consumer_timeout_s": 1_800}
    assert (found.broker_named_by, found.server_variable) == ("SWITCHYARD_REDIS_URL", "SWITCHYARD_REDIS_URL")


def test_its_settings_are_keys_of_the_librarys() -> None:
    declared = {"BROKER_URL": "amqp://localhost/", "RABBITMQ_QUEUES": "classic", "RABBITMQ_CONSUMER_TIMEOUT_S": 60}

    assert read(declared, BESIDE, debug=True).place_options == {"queue_type": "classic", "consumer_timeout_s": 60}
    with pytest.raises(InvalidSetting, match="did you mean RABBITMQ_QUEUES"):
        read({"RABBITMQ_QUEUE": "classic"}, {}, debug=True)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SWITCHYARD_BROKER_URL": "amqp://rabbit/"}, "SWITCHYARD_BROKER_URL: rabbit is reached without a password"),
        ({"SWITCHYARD_BROKER_URL": "amqp://localhost/"}, "SWITCHYARD_REDIS_URL: is not set"),
        (
            {"SWITCHYARD_BROKER_URL": "amqp://localhost", "SWITCHYARD_REDIS_URL": "amqp://localhost"},
            "'amqp' is not one",
        ),
        (
            {"SWITCHYARD_BROKER_URL": "amqp://localhost/", "SWITCHYARD_RABBITMQ_QUEUES": "stream"},
            "'stream' is not one of quorum, classic",
        ),
        ({"SWITCHYARD_BROKER_URL": "amqps://u:p@a/yard?heartbet=3"}, "'heartbet', which pika does not know"),
        ({"SWITCHYARD_BROKER_URL": "amqps://u:p@a/yard?heartbeat=x"}, "heartbeat='x', which is not a whole number"),
        ({"SWITCHYARD_BROKER_URL": "amqps://u:p@a/yard?heartbeat=1.5"}, "heartbeat='1.5', which is not a whole number"),
        ({"SWITCHYARD_BROKER_URL": "amqps://u:p@a/yard?retry_delay=x"}, "retry_delay='x', which is not a number"),
        ({"SWITCHYARD_BROKER_URL": "amqps://u@127.0.0.1/yard"}, "names a user without a password"),
        ({"SWITCHYARD_BROKER_URL": "amqp://u@127.0.0.1/yard"}, "names a user without a password"),
    ],
)
def test_an_unusable_setting_is_refused(environ: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        read({}, environ, debug=False)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("socket_timeout=0", "socket_timeout must be > 0, but got 0.0"),
        ("ssl_options={'ca_certs':'/nowhere','password':'canary'}", "[Errno 2] No such file or directory"),
        ("ssl_options={'password':'canary'}&ssl_options=3", "Expected exactly one value for URL parameter ssl_options"),
        ("tcp_options=(", "was never closed"),
        ("ssl_options=[]", "has no attribute"),
    ],
)
def test_an_option_that_pika_refuses_ends_the_process_with_78_and_one_line(
    tmp_path: Path, option: str, why: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHYARD_")}
    environment |= {"SWITCHYARD_STATE_DIR": str(tmp_path), "SWITCHYARD_BROKER_URL": f"amqp://u:p@127.0.0.1/?{option}"}
    environment |= {"SWITCHYARD_REDIS_URL": "redis://127.0.0.1:1/0"}

    done = subprocess.run(
        [sys.executable, "manage.py", "check"], env=environment, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 78
    [line] = done.stderr.splitlines()
    assert "refused to start: the broker's address has an option that pika refuses: " in line and why in line
    assert "SWITCHYARD_BROKER_URL" in line and "canary" not in line


def test_a_client_that_is_not_installed_ends_the_process_with_one_line(tmp_path: Path) -> None:
    done = check_without("pika", tmp_path, {"SWITCHYARD_BROKER_URL": "amqp://guest:hunter2@127.0.0.1:1/"})

    assert done.returncode == 78, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("switchyard: refused to start: ") and "run: pip install 'pika" in line
    assert "hunter2" not in line


def test_queues_are_not_said_to_be_on_time(settings: Any) -> None:
    settings.SWITCHYARD = replace(settings.SWITCHYARD, **settings_of("amqp://127.0.0.1/"))

    assert none_late() == "Whether a queue is late is not known, as RabbitMQ tells no ages"
