"""A yard of containers: from nothing to green, a job of each product, faults, a roll under load, and an orderly end."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
import zlib
from collections.abc import Iterator

import pytest

from switchyard.embedded.server import free_port
from tests.containers.yard import ContainerYard
from tests.factories.smtp import Recorder, smtp_server
from tests.waiting import wait_for

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]

PART = "frontier"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001"
    "a5f645400000000049454e44ae426082"
)
LARGE_PX = 4_990
# An idle pool of pictures fits, a large picture in it does not.
TOO_SMALL = "200m"


def large_png() -> bytes:
    """Return a transparent picture of 25 million pixels: 100 MB in memory, 100 KB as a file."""
    rows = zlib.compress(bytes((1 + 4 * LARGE_PX) * LARGE_PX))
    parts = ((b"IHDR", struct.pack(">IIBBBBB", LARGE_PX, LARGE_PX, 8, 6, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    ]
    return PNG[:8] + b"".join(chunks)


def picture(content: bytes) -> bytes:
    """Return a form with a picture and its size."""
    fields = [
        f'--{PART}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n64\r\n'.encode()
        for name in ("width", "height")
    ]
    head = (
        f'--{PART}\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    )
    return b"".join([*fields, head.encode(), content, f"\r\n--{PART}--\r\n".encode()])


@pytest.fixture
def mail() -> Iterator[Recorder]:
    with smtp_server() as recorder:
        yield recorder


def reset(yard: ContainerYard, number: int) -> str:
    return yard.send("/api/v1/emails", {"to": f"ada.{number}@example.com", "template": "password_reset"})


def thumbnail(yard: ContainerYard, content: bytes = PNG) -> str:
    return yard.send("/api/v1/thumbnails", picture(content), kind=f"multipart/form-data; boundary={PART}")


def ended(yard: ContainerYard, jobs: list[str], timeout_s: float = 180.0) -> list[str]:
    states: dict[str, str] = {}

    def all_ended() -> bool:
        for job in jobs:
            if states.get(job) not in ("succeeded", "dead"):
                states[job] = yard.job(job)["state"]
        return all(state in ("succeeded", "dead") for state in states.values())

    wait_for(all_ended, timeout_s, what=f"the end of {len(jobs)} jobs")
    return [states[job] for job in jobs]


@contextlib.contextmanager
def load(yard: ContainerYard) -> Iterator[list[str]]:
    """Send work again and again until the block ends; yield the ids of what was accepted."""
    sent: list[str] = []
    over = threading.Event()
    failed: list[Exception] = []

    def run() -> None:
        try:
            while not over.wait(0.05):
                sent.append(reset(yard, 1_000 + len(sent)))
        except Exception as error:  # noqa: BLE001  raised by the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()
    assert not failed, failed


def test_yard_of_containers_comes_up_works_is_hurt_is_rolled_and_ends(
    yard: ContainerYard, mail: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    yard.environment["SWITCHYARD_SMTP_URL"] = f"smtp://127.0.0.1:{mail.port}"
    yard.prepare()
    took_s = yard.up("pool-urgent", "pool-default", "pool-images", "pool-slow", "pool-billing")
    said.append(f"eight containers green after {took_s:.0f} s")

    # A job of each product.
    jobs = [
        yard.send("/api/v1/emails", {"to": "ada@example.com", "template": "welcome"}),
        reset(yard, 0),
        yard.send("/api/v1/reports", {"customer_id": 1, "month": "2026-01"}),
        yard.send("/api/v1/exports", {"dataset": "customers", "format": "csv"}),
        yard.send("/api/v1/reconciliations", {"month": "2026-01"}),
        thumbnail(yard),
    ]
    began_s = time.monotonic()
    assert ended(yard, jobs) == ["succeeded"] * len(jobs)
    said.append(f"{len(jobs)} jobs of the products ended after {time.monotonic() - began_s:.0f} s")

    # A container that is killed loses nothing: its leases lapse after 15 s, and another one takes its work.
    killed = [reset(yard, number) for number in range(1, 21)]
    yard.engine.podman("kill", "--signal", "KILL", "pool-urgent")
    killed += [reset(yard, number) for number in range(21, 41)]
    yard.start("pool-urgent")
    assert ended(yard, killed) == ["succeeded"] * 40

    # A job that takes more memory than its container has ends at the limit, each time with its child alone; the doctor
    # names it, and the container goes on.
    yard.stop("pool-images")
    yard.start("pool-images", memory=TOO_SMALL)
    wait_for(lambda: yard.is_up("pool-images"), 120, what="a pool of pictures with little memory")
    hog = thumbnail(yard, large_png())
    assert ended(yard, [hog]) == ["dead"]
    assert yard.job(hog)["reason"] == "poison"
    told = yard.engine.podman("exec", "web", "python", "manage.py", "switchyard", "doctor", check=False).stdout
    assert hog in told and "uses too much memory" in told
    assert yard.engine.state("pool-images")[0]
    small = thumbnail(yard)
    assert ended(yard, [small]) == ["succeeded"]

    # A roll under load: the successor is up before the old one drains.
    yard.engine.build("two")
    yard.manage("switchyard", "check_backlog", release="two")
    with load(yard) as sent:
        wait_for(lambda: len(sent) > 20, what="load")
        yard.ports["pool-urgent"] = free_port()
        yard.start("pool-urgent", "two", name="pool-urgent-two", SWITCHYARD_RELEASE="two")
        wait_for(lambda: yard.is_up("pool-urgent"), 120, what="the successor")
        drained = yard.stop("pool-urgent")
        count = len(sent)
        wait_for(lambda: len(sent) > count + 20, what="load on the successor")
    assert drained == 0
    assert set(ended(yard, sent)) == {"succeeded"}
    assert {f"ada.{1_000 + number}@example.com" for number in range(len(sent))} <= set(mail.recipients)
    said.append(f"roll under load: {len(sent)} jobs, 0 lost, the old pool drained with 0")

    # Down: everything drains. The web ends what runs, and then by the signal itself, as uvicorn does.
    names = [
        *("web", "scheduler", "history", "pool-urgent-two", "pool-default", "pool-images", "pool-slow"),
        "pool-billing",
    ]
    began_s = time.monotonic()
    assert {name: yard.stop(name) for name in names} == dict.fromkeys(names, 0) | {"web": 143}
    said.append(f"down after {time.monotonic() - began_s:.0f} s, each drained")
    with capsys.disabled():
        print("\n".join(said))
