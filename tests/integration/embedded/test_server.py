"""The embedded server and its command: data survive crashes, strangers stay out, no process stays behind."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from project.config import BASE_DIR
from switchyard.broker.redis.connections import connect
from switchyard.embedded.server import EmbeddedServer, EmbeddedServerFailed, bundled_binary, free_port
from tests.processes import is_alive
from tests.waiting import wait_for

COMMAND = (sys.executable, "-m", "switchyard.embedded")


def client_of(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), decode_responses=True)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["its own socket", "a socket elsewhere"])
def test_answers_over_tcp_and_over_its_socket(tmp_path, elsewhere):
    (tmp_path / "sockets").mkdir()
    server = EmbeddedServer(tmp_path / "data", socket_path=tmp_path / "sockets" / "s" if elsewhere else None)
    with server, client_of(server.url) as over_tcp, client_of(server.socket_url) as over_socket:
        over_tcp.set("greeting", "hello")

        assert server.socket_url.startswith("unix://")
        assert not elsewhere or server.socket_url == f"unix://{tmp_path}/sockets/s?db=0"
        assert over_socket.get("greeting") == "hello"
        assert over_tcp.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert over_tcp.config_get("appendonly", "appendfsync") == {"appendonly": "yes", "appendfsync": "everysec"}
    assert server.pid is None


def test_data_survive_kill_and_restart_on_the_same_port(tmp_path):
    server = EmbeddedServer(tmp_path).start()
    port = server.port
    with client_of(server.url) as client:
        client.set("kept", "yes")

    server.kill()
    with server, client_of(server.url) as client:
        assert server.port == port
        assert client.get("kept") == "yes"


def test_it_has_started_when_its_data_are_loaded(tmp_path, monkeypatch):
    server = EmbeddedServer(tmp_path).start()
    with client_of(server.url) as client, client.pipeline(transaction=False) as pipeline:
        for number in range(20_000):
            pipeline.set(f"key-{number}", number)
        pipeline.execute()
        wait_for(lambda: not client.info("persistence")["aof_buffer_length"])  # it writes later while its disk is busy
    server.kill()
    usual = EmbeddedServer._arguments
    monkeypatch.setattr(EmbeddedServer, "_arguments", lambda self: [*usual(self), "--key-load-delay", "50"])
    with server, client_of(server.url) as client:
        assert client.dbsize() == 20_000


def test_server_is_gone_after_kill_9_of_its_parent_and_its_data_are_not(tmp_path):
    program = (
        "import sys, time; from switchyard.embedded.server import EmbeddedServer\n"
        "server = EmbeddedServer(sys.argv[1]).start(); print(server.pid, server.url, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with parent:
        pid, url = parent.stdout.readline().split()
        with client_of(url) as client:
            client.set("kept", "yes")

        os.kill(parent.pid, signal.SIGKILL)

    wait_for(lambda: not is_alive(int(pid)))
    with EmbeddedServer(tmp_path) as server, client_of(server.url) as client:
        assert client.get("kept") == "yes"


def test_second_server_on_the_folder_waits_for_the_first_and_then_starts(tmp_path):
    first = EmbeddedServer(tmp_path).start()
    with pytest.raises(EmbeddedServerFailed, match="another server uses this folder"):
        EmbeddedServer(tmp_path, start_timeout_s=0.1).start()

    stopper = threading.Timer(0.2, first.stop)
    stopper.start()
    with EmbeddedServer(tmp_path) as second:
        assert second.running
    stopper.join()


def test_given_port_in_use_is_an_error_that_names_the_log(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = EmbeddedServer(tmp_path, port=taken.getsockname()[1])

        with pytest.raises(EmbeddedServerFailed, match=r"in use.*valkey\.log"):
            server.start()


def test_free_port_that_is_taken_meanwhile_is_replaced_by_another(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
        monkeypatch.setattr("switchyard.embedded.server.free_port", lambda: ports.pop() if ports else free_port())

        with EmbeddedServer(tmp_path) as server:
            assert server.port != taken.getsockname()[1]


def test_binary_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(EmbeddedServerFailed, match="cannot be run"):
        EmbeddedServer(tmp_path, binary=tmp_path / "no-such-server").start()


def test_folder_too_deep_for_a_socket_is_served_over_tcp(tmp_path):
    with EmbeddedServer(tmp_path / ("deep" * 30)) as server, client_of(server.socket_url) as client:
        assert server.socket_url == server.url
        assert client.ping()


def test_server_on_path_serves_where_none_is_bundled(tmp_path, monkeypatch):
    bundled = bundled_binary()
    assert bundled is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "redis-server").symlink_to(bundled)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("switchyard.embedded.server.bundled_binary", lambda: None)

    with EmbeddedServer(tmp_path / "data") as server:
        assert server.running


def test_server_is_where_development_looks_for_it_and_ends_with_a_signal(tmp_path):
    with subprocess.Popen([*COMMAND, str(tmp_path)], cwd=BASE_DIR, stdout=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline()
        client = connect(f"unix://{tmp_path}/valkey.sock")
        client.set("kept", "1")
        client.close()
        process.send_signal(signal.SIGTERM)

        assert process.wait(60) == 0
        assert ready.startswith(f"ready: unix://{tmp_path}/valkey.sock")
    assert (tmp_path / "valkey" / "appendonlydir").is_dir()


def test_killed_server_ends_the_command_with_the_place_of_its_log(tmp_path):
    with subprocess.Popen(
        [*COMMAND, str(tmp_path)], cwd=BASE_DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        client = connect(f"unix://{tmp_path}/valkey.sock")
        os.kill(client.info("server")["process_id"], signal.SIGKILL)
        client.close()

        assert process.wait(60) == 1
        assert "valkey.log" in process.stderr.read()


def test_a_signal_ends_the_wait_for_another_server(tmp_path):
    (tmp_path / "valkey").mkdir()
    with (tmp_path / "valkey" / "valkey.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen([*COMMAND, str(tmp_path)], cwd=BASE_DIR, stderr=subprocess.PIPE, text=True) as process:
            assert "another server uses" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)

            assert process.wait(20) == 0  # of the 30 s that it would wait


def test_port_that_there_is_not_is_a_wrong_call_and_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "var").write_text("")

    port, folder = (
        subprocess.run([*COMMAND, *words], cwd=BASE_DIR, capture_output=True, text=True, timeout=60)
        for words in ((str(tmp_path), "--port", "70000"), (str(tmp_path / "var"),))
    )

    assert (port.returncode, "Traceback" in port.stderr) == (2, False)
    assert folder.returncode == 1
    assert folder.stderr == (
        f"embedded Valkey in {tmp_path}/var/valkey: the folder cannot be created: not a directory; "
        "name one that this user may write to\n"
    )
