"""A RabbitMQ that takes no connection, refuses a right or a queue: doctor, command and error of a send say why."""

import contextlib
import dataclasses
import json
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import dramatiq
import pika
import pytest
import redis
from django.conf import settings
from django.test import override_settings

from switchyard.addons.rabbitmq.connections import RabbitQueues
from switchyard.addons.rabbitmq.findings import look_at_rabbitmq
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.conf import declared_yard
from switchyard.operations.findings.examine import run_checks
from switchyard.operations.findings.finding import Finding, FindingGroup
from tests.addons.rabbitmq.server import RabbitServer, build_rabbit_yard, settings_of
from tests.factories.commands import end_of
from tests.factories.yards import small_yard
from tests.integration.doctor.conftest import of
from tests.integration.operations.test_health import evicting as evicting
from tests.tls import Authority

# A connection that is given up leaves pika's socket to the garbage collection.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
QUEUES = r"^switchyard\."
RIGHTS = {
    "sound": (QUEUES, r"^amq\.default$", QUEUES), "configures_nothing": ("^$", ".*", ".*"),
    "writes_nothing": (QUEUES, "^$", QUEUES), "reads_nothing": (QUEUES, ".*", "^$"),
}  # fmt: skip


@pytest.fixture(scope="module")
def guarded(authority, tmp_path_factory) -> Iterator[RabbitServer]:
    """A server with users of few rights; over TLS it asks for a certificate."""
    certificate = (authority.file, *authority.issue("server"))
    folder = tmp_path_factory.mktemp("guarded")
    server = RabbitServer(folder, certificate=certificate, rights=RIGHTS, asks=True).start()
    yield server
    server.stop()


def look() -> list[Finding]:
    return run_checks(FindingGroup("broker"), look_at_rabbitmq, 20.0)


def error_of_a_send(url: str, valkey: redis.Redis) -> str:
    broker = build_rabbit_yard(small_yard(), valkey, Keys("test-doctor"), url=url)
    try:
        broker.enqueue(dramatiq.Message("work", "job", (), {}, {}))
    except BrokerUnavailable as error:
        return str(error)
    finally:
        broker.close()
    return ""


@pytest.mark.parametrize("name", RIGHTS)
@pytest.mark.parametrize("queues", ["quorum", "classic"])
def test_a_right_that_the_user_lacks_is_an_error(guarded, configure, name, queues):
    configure(**settings_of(guarded.url.replace("guest:guest", f"{name}:{name}"), queue_type=queues))

    found = look()

    if name == "sound":
        assert of(found, "ok")
        assert of(found, "error") == {}
    else:
        [refused] = of(found, "error").values()
        assert "403 ACCESS_REFUSED" in refused.seen
        assert "rabbitmqctl set_permissions" in refused.next


def test_rejected_messages_are_told_with_their_queue(guarded, configure):
    """RabbitMQ 4 rejects what came back 20 times; nothing reads that queue."""
    queues, lane = RabbitQueues(declared_yard().keys.prefix), declared_yard().queues[0].name
    connection = pika.BlockingConnection(pika.URLParameters(guarded.url))
    channel = connection.channel()
    queues.declare(channel, lane, queues.name(lane))
    channel.confirm_delivery()
    channel.basic_publish("", queues.rejected(lane), b"{}", mandatory=True)
    configure(**settings_of(guarded.url))

    found = look()
    channel.queue_delete(queues.rejected(lane))
    channel.queue_delete(queues.name(lane))
    connection.close()

    assert of(found, "warning")["rejected"].seen == f"RabbitMQ rejected messages: 1 in switchyard.{lane}.XQ"
    assert "docs/how-to/run-on-rabbitmq.md" in of(found, "warning")["rejected"].next
    assert of(look(), "warning") == {}


def test_a_server_that_asks_for_a_certificate_is_told_and_takes_one(guarded, authority, configure, monkeypatch, valkey):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    configure(**settings_of(guarded.secure_url))
    refused = of(look(), "error")["away"]
    file, key = authority.issue("client")
    options = {"ca_certs": str(authority.file), "certfile": str(file), "keyfile": str(key)}
    configure(**settings_of(f"{guarded.secure_url}?ssl_options={quote(str(options))}"))

    assert "asks for a certificate of ours" in refused.cause
    assert "docs/how-to/run-on-rabbitmq.md" in refused.next
    assert "name a certificate" in error_of_a_send(guarded.secure_url, valkey)
    assert of(look(), "ok")


def test_an_address_without_tls_at_a_port_for_tls_is_told(guarded, configure, valkey):
    url = guarded.secure_url.replace("amqps:", "amqp:")
    configure(**settings_of(url))

    refused = of(look(), "error")["away"]

    assert "without TLS" in refused.cause and "amqps://" in refused.next
    assert "begin SWITCHYARD_BROKER_URL with amqps://" in error_of_a_send(url, valkey)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("amqp://guest:wrong@127.0.0.1:{port}/", "correct user and password"),
        ("amqp://guest:guest@127.0.0.1:{port}/nowhere", "correct what stands after the last /"),
        ("amqp://guest:guest@rabbit.invalid:{port}/", "correct the host"),
    ],
)
def test_the_error_of_a_send_says_what_to_correct(guarded, valkey, wrong, remedy):
    assert f"; {remedy}" in error_of_a_send(wrong.format(port=guarded.port), valkey)


def test_a_rabbitmq_that_takes_connections_is_told_and_one_that_does_not_is_an_error(rabbitmq_server, configure):
    def found_at(url: str) -> list[Finding]:
        configure(**settings_of(url))
        return look()

    assert "queues are quorum" in of(found_at(rabbitmq_server.url), "ok")["ok"].seen
    away = of(found_at("amqp://guest:guest@127.0.0.1:1/"), "error")["away"]
    refused = of(found_at(rabbitmq_server.url.replace("guest@", "wrong@")), "error")["away"]
    assert away.seen.startswith("RabbitMQ does not take a connection (")
    assert "Authentication" in refused.seen and refused.cause == "It refuses user or password"
    elsewhere = of(found_at(rabbitmq_server.url + "nowhere"), "error")["away"]
    assert "no virtual host of that name" in elsewhere.cause and "list_vhosts" in elsewhere.next
    unknown = of(found_at("amqp://guest:guest@rabbit.invalid:1/"), "error")["away"]
    assert unknown.cause == "The name of its host does not resolve"


def test_a_certificate_that_is_refused_is_told_with_the_variable_of_its_authority(tmp_path, configure):
    file, key = Authority(tmp_path / "authority").issue("server")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(file, key)

    def answer(listener: socket.socket) -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as taken:
            served.wrap_socket(taken, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as threads:
        threads.submit(answer, listener)
        configure(**settings_of(f"amqps://guest:guest@127.0.0.1:{listener.getsockname()[1]}/"))
        refused = of(look(), "error")["away"]

    assert "certificate is refused" in refused.cause and "SSL_CERT_FILE" in refused.next


def broker_command(url: str, *arguments: str) -> tuple[int, str]:
    with override_settings(SWITCHYARD=dataclasses.replace(settings.SWITCHYARD, **settings_of(url))):
        return end_of("broker", *arguments)


def test_command_checks_a_rabbitmq_beside_its_redis(facilities, rabbitmq_server):
    answers = broker_command(rabbitmq_server.url)
    code, away = broker_command("amqp://guest:guest@127.0.0.1:1/")

    assert answers == (0, "broker: nothing is wrong with RabbitMQ and the Redis server beside it\n")
    assert code == 1
    assert away.startswith("error: RabbitMQ does not take a connection (") and "rabbitmqctl status" in away


def test_command_tells_of_both_servers(evicting, facilities, rabbitmq_server):
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url))
    queue = f"{declared_yard().keys.prefix}.EMPTY"
    connection.channel().queue_delete(queue)
    connection.channel().queue_declare(queue, durable=True)  # a classic one
    try:
        code, printed = broker_command(rabbitmq_server.url, "--json")
    finally:
        connection.channel().queue_delete(queue)
        connection.close()

    told = json.loads(printed)
    assert (code, told["ok"]) == (1, False)
    assert {"evicting", "rabbitmq_refuses"} <= {found["code"] for found in told["findings"]}


def test_command_tells_of_queues_of_another_type(facilities, rabbitmq_server):
    queue = f"{declared_yard().keys.prefix}.{declared_yard().lanes[0]}"
    names = (f"{queue}.XQ", queue)
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url))
    channel = connection.channel()
    for name in names:
        channel.queue_delete(name)
        channel.queue_declare(name, durable=True)  # a classic one
    try:
        code, printed = broker_command(rabbitmq_server.url)
    finally:
        for name in names:
            channel.queue_delete(name)
        connection.close()

    assert code == 1
    assert printed.startswith("error: RabbitMQ refuses: 406") and queue in printed
    assert "SWITCHYARD_RABBITMQ_QUEUES" in printed
