"""The development mail server as the demo runs it: a process of its own."""

from __future__ import annotations

import signal
import smtplib
import subprocess
import sys

from tests.waiting import wait_for

MODULE = [sys.executable, "-m", "apps.mail.sink"]


def test_the_sink_keeps_a_mail_as_a_file_and_stops_on_sigterm(tmp_path):
    process = subprocess.Popen([*MODULE, "--port", "0", "--dir", tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        ready = process.stdout.readline().strip()
        host, port = ready.removeprefix("ready: ").split(":")
        with smtplib.SMTP(host, int(port), local_hostname="localhost", timeout=30) as client:
            client.sendmail("yard@mail.example", ["ada@mail.example"], "Subject: Hello\r\n\r\nText\r\n")
            kept = list((tmp_path / "new").glob("*.eml"))
            process.send_signal(signal.SIGTERM)
            code = process.wait(30)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()

    assert ready.startswith("ready: 127.0.0.1:")
    assert len(kept) == 1
    assert b"X-Envelope-To: ada@mail.example" in kept[0].read_bytes()
    assert list((tmp_path / "tmp").iterdir()) == []
    assert code == 0


def test_the_sink_keeps_the_mails_of_many_clients_at_once(tmp_path):
    process = subprocess.Popen([*MODULE, "--port", "0", "--dir", tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline().rpartition(":")[2])
        clients = [smtplib.SMTP("127.0.0.1", port, local_hostname="localhost", timeout=30) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendmail("yard@mail.example", [f"a{number}@mail.example"], f"Subject: {number}\r\n\r\nText\r\n")
        wait_for(lambda: len(list((tmp_path / "new").glob("*.eml"))) == 20)
        for client in clients:
            client.close()
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
