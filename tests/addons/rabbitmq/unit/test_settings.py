"""The settings of RabbitMQ: an unusable one is refused by name, checks compare a yard with them, the page has them."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import dramatiq
import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from dramatiq.brokers.stub import StubBroker

from docs.make_keys import rows, table
from switchyard.addons.rabbitmq import ADDON
from switchyard.addons.rabbitmq.settings import limits_over_the_consumer_timeout
from switchyard.addons.rabbitmq.unique_claims import RabbitKeys
from switchyard.batches.services import Batch, batch, current_batch
from switchyard.broker.interface import facilities
from switchyard.broker.topology import Dependency
from switchyard.conf import SwitchyardSettings, switchyard_settings
from switchyard.operations.findings.lateness import none_late
from switchyard.setting_values import InvalidSetting
from switchyard.wiring import in_order
from switchyard.workers.checks import TAG
from tests.addons.rabbitmq.server import settings_of
from tests.factories.brokers import the_global_broker
from tests.factories.yards import small_yard
from tests.unit.documentation import pages
from tests.unit.documentation.pages import ROOT
from tests.unit.platform.test_conf import read
from tests.unit.platform.test_missing_packages import check_without

BESIDE = {"SWITCHYARD_REDIS_URL": "redis://127.0.0.1:6379/0"}
PAGE = pages.read("docs/addons/rabbitmq.md")
SOURCES = {path: path.read_text() for path in (ROOT / "switchyard/addons/rabbitmq").glob("*.py")}


def test_rabbitmq_is_the_broker_and_redis_stands_beside_it():
    found = read({}, {**BESIDE, "SWITCHYARD_BROKER_URL": "amqp://127.0.0.1:5672/"}, debug=False)

    assert (found.place_url, found.broker_url) == ("amqp://127.0.0.1:5672/", "redis://127.0.0.1:6379/0")
    assert found.place_options == {"queue_type": "quorum", "consumer_timeout_s": 1_800}
    assert (found.broker_named_by, found.server_variable) == ("SWITCHYARD_REDIS_URL", "SWITCHYARD_REDIS_URL")


def test_its_settings_are_keys_of_the_librarys():
    declared = {"BROKER_URL": "amqp://localhost/", "RABBITMQ_QUEUES": "classic", "RABBITMQ_CONSUMER_TIMEOUT_S": 60}

    assert read(declared, BESIDE, debug=True).place_options == {"queue_type": "classic", "consumer_timeout_s": 60}
    with pytest.raises(InvalidSetting, match="did you mean RABBITMQ_QUEUES"):
        read({"RABBITMQ_QUEUE": "classic"}, {}, debug=True)


@pytest.mark.parametrize(
    ("url", "more", "said"),
    [
        ("amqp://rabbit/", {}, "SWITCHYARD_BROKER_URL: rabbit is reached without a password"),
        ("amqp://localhost/", {}, "SWITCHYARD_REDIS_URL: is not set"),
        ("amqp://localhost", {"SWITCHYARD_REDIS_URL": "amqp://localhost"}, "'amqp' is not one"),
        ("amqp://localhost/", {"SWITCHYARD_RABBITMQ_QUEUES": "stream"}, "'stream' is not one of quorum, classic"),
        ("amqps://u:p@a/yard?heartbet=3", {}, "'heartbet', which pika does not know"),
        ("amqps://u:p@a/yard?heartbeat=x", {}, "heartbeat='x', which is not a whole number"),
        ("amqps://u:p@a/yard?heartbeat=1.5", {}, "heartbeat='1.5', which is not a whole number"),
        ("amqps://u:p@a/yard?retry_delay=x", {}, "retry_delay='x', which is not a number"),
        ("amqps://u@127.0.0.1/yard", {}, "names a user without a password"),
        ("amqp://u@127.0.0.1/yard", {}, "names a user without a password"),
    ],
)
def test_an_unusable_setting_is_refused(url, more, said):
    with pytest.raises(InvalidSetting, match=said):
        read({}, {"SWITCHYARD_BROKER_URL": url, **more}, debug=False)


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
def test_an_option_that_pika_refuses_ends_the_process_with_78_and_one_line(tmp_path, option, why):
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


def test_a_client_that_is_not_installed_ends_the_process_with_one_line(tmp_path):
    done = check_without("pika", tmp_path, {"SWITCHYARD_BROKER_URL": "amqp://guest:hunter2@127.0.0.1:1/"})

    assert done.returncode == 78, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("switchyard: refused to start: ") and "run: pip install 'pika" in line
    assert "hunter2" not in line


def test_queues_are_not_said_to_be_on_time(settings):
    settings.SWITCHYARD = replace(settings.SWITCHYARD, **settings_of("amqp://127.0.0.1/"))

    assert none_late() == "Whether a queue is late is not known, as RabbitMQ tells no ages"


def with_timeout(own: SwitchyardSettings, timeout_s: int) -> SwitchyardSettings:
    return replace(own, **settings_of("amqp://127.0.0.1/", consumer_timeout_s=timeout_s))


@pytest.fixture
def no_actors() -> Iterator[None]:
    """Have no actor declared: those of the products have options that RabbitMQ lacks."""
    with the_global_broker(StubBroker(middleware=[])):
        yield


@pytest.mark.usefixtures("no_actors")
def test_a_hard_limit_over_half_of_the_consumer_timeout_is_refused():
    yard = small_yard(soft_limit_ms=30_000)  # its hard limit is twice that
    own = replace(switchyard_settings(), topology=yard)

    [found] = limits_over_the_consumer_timeout(with_timeout(own, 119))

    assert (found.id, found.obj) == ("switchyard.E026", "queue work")
    assert "60 s is over 59.5 s" in found.msg
    assert limits_over_the_consumer_timeout(with_timeout(own, 120)) == []


@pytest.mark.usefixtures("no_actors")
def test_a_dependency_has_no_circuit_there():
    own = replace(switchyard_settings(), topology=replace(small_yard(), dependencies=(Dependency("payments"),)))

    [found] = limits_over_the_consumer_timeout(with_timeout(own, 120))

    assert (found.id, found.obj) == ("switchyard.W027", "dependency payments")


def test_limits_on_what_runs_at_once_have_no_effect_there():
    broker, yard = StubBroker(middleware=in_order(facilities())), small_yard()
    dramatiq.actor(lambda key: None, actor_name="limited", broker=broker, concurrency=1, ordered_by="key")
    own = replace(switchyard_settings(), topology=replace(yard, queues=(replace(yard.queues[0], fair_by="key"),)))

    with the_global_broker(broker):
        found = limits_over_the_consumer_timeout(with_timeout(own, 120))

    assert {one.id for one in found} == {"switchyard.W027"}
    assert [one.obj for one in found] == ["actor limited", "actor limited", "queue work"]


def import_all() -> None:
    with batch("import"):
        pass


async def import_more(batch_id: str) -> None:
    Batch(batch_id).add()


def import_one() -> None:
    current_batch()


def test_a_batch_cannot_be_made_there():
    broker = StubBroker(middleware=in_order(facilities()))
    for function in (import_all, import_more, import_one):
        dramatiq.actor(function, broker=broker)
    own = replace(switchyard_settings(), topology=small_yard())

    with the_global_broker(broker):
        found = limits_over_the_consumer_timeout(with_timeout(own, 120))

    assert [(one.id, one.obj) for one in found] == [("switchyard.W027", f"actor import_{n}") for n in ("all", "more")]


def test_manage_py_check_refuses_such_a_yard(monkeypatch):
    own = with_timeout(switchyard_settings(), 10)
    monkeypatch.setattr("switchyard.workers.checks.switchyard_settings", lambda: own)

    with pytest.raises(SystemCheckError, match=r"\(switchyard\.E026\) its hard limit of .* is over 5 s"):
        call_command("check", "--tag", TAG)


def test_its_settings_are_described():
    assert {*re.findall(r"^\| `(SWITCHYARD_\w+)` \|", PAGE, re.MULTILINE)} == set(ADDON.settings.values())


def test_its_checks_are_described():
    known = {found for text in SOURCES.values() for found in re.findall(r"switchyard\.[EW]\d{3}", text)}

    assert set(re.findall(r"^\| `(switchyard\.[EW]\d{3})`", PAGE, re.MULTILINE)) == known


def test_its_keys_are_those_of_the_docstrings():
    assert table(list(rows(RabbitKeys("switchyard")))) in PAGE


def test_every_file_of_a_private_name_uses_one_of_its_names():
    found = re.findall(r"^\| pika \| (`.+?`) \| `(.+?)` \|", PAGE, re.MULTILINE)

    assert len(found) == 3
    for names, file in found:
        used = [name.rpartition(".")[2] for name in re.findall(r"`([^`]+)`", names)]
        assert any(name in SOURCES[ROOT / file] for name in used), file


def test_each_module_is_on_its_first_page():
    first = SOURCES[ROOT / "switchyard/addons/rabbitmq/__init__.py"]

    assert {path.stem for path in SOURCES} - {"__init__", *re.findall(r"``(\w+)``", first)} == set()
