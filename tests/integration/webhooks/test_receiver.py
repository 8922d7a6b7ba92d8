"""The receiver for demos, as a process."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "apps.webhooks.receiver"]


def ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data=body, headers={name.replace("_", "-"): v for name, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_it_says_where_it_is_and_stops_at_once_even_while_a_request_waits() -> None:
    with subprocess.Popen([*COMMAND, "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        url = ready.removeprefix("ready: ").strip()
        waits = subprocess.Popen(
            [sys.executable, "-c", f"import urllib.request as u; u.urlopen('{url}slow', b'{{}}')"],
            stderr=subprocess.DEVNULL,
        )
        status, _ = ask(url + "healthy", b"{}")
        process.send_signal(signal.SIGTERM)
        code = process.wait(25)
        waits.kill()
        waits.wait(30)

    assert ready.startswith("ready: http://127.0.0.1:")
    assert (status, code) == (200, 0)


def test_each_path_behaves_as_its_name_says(receiver) -> None:
    url = receiver.url

    assert ask(url + "healthy", b"{}")[0] == 200
    assert [ask(url + "flaky", b"{}", webhook_id="msg_1")[0] for _ in range(4)] == [500, 500, 200, 200]
    assert ask(url + "flaky", b"{}", webhook_id="msg_2")[0] == 500
    assert ask(url + "broken", b"{}")[0] == 500
    assert ask(url + "gone", b"{}")[0] == 410
    assert ask(url + "elsewhere", b"{}")[0] == 404
    assert ask(url + "healthz")[0] == 200
    log = receiver.log
    assert [entry["status"] for entry in log] == [200, 500, 500, 200, 200, 500, 500, 410, 404]
    assert log[1].keys() == {"id", "path", "status", "signature_ok", "at"}
    assert log[1]["signature_ok"] is None


def test_it_serves_a_picture(receiver) -> None:
    status, content = ask(receiver.url + "image.jpg")

    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        assert (status, picture.format, picture.size) == (200, "JPEG", (1200, 800))


@pytest.mark.parametrize("signature", ["", "v1", "v1,", "v1,***", "v2,abc", "v1,ü", "v1,AAAA " * 50])
def test_a_broken_signature_is_no_crash(receiver, signature: str) -> None:
    receiver.secrets_file.write_text('{"a": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}')
    headers = {"webhook_id": "msg_1", "webhook_timestamp": str(int(time.time())), "webhook_signature": signature}

    assert ask(receiver.url + "healthy", b"{}", **headers)[0] == 401
    assert len(receiver.log) == 1
