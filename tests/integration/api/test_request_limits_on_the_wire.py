"""Large bodies over a real socket: refused, and never kept."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from project.asgi import application
from tests.factories.web import serving

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with serving(application) as address:
        yield address


def connect(web: str) -> http.client.HTTPConnection:
    address = urlsplit(web)
    assert address.hostname is not None
    return http.client.HTTPConnection(address.hostname, address.port, timeout=30)


def chunks(count: int) -> Iterator[bytes]:
    piece = b"x" * MIB
    for _ in range(count):
        yield piece


def test_a_declared_body_of_100_mb_is_413(web: str) -> None:
    connection = connect(web)
    connection.putrequest("POST", "/api/v1/jobs/1")
    connection.putheader("Content-Length", str(100 * MIB))
    connection.putheader("Content-Type", "application/json")
    connection.endheaders()

    answer = connection.getresponse()

    assert answer.status == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    connection.close()


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
def test_a_chunked_body_of_100_mb_is_413_and_not_kept_in_memory(web: str, content_type: str, tmp_path: Path) -> None:
    connection = connect(web)
    before = psutil.Process().memory_info().rss

    connection.request("POST", "/api/v1/jobs/1", chunks(100), {"Content-Type": content_type}, encode_chunked=True)
    answer = connection.getresponse()

    assert answer.status == 413
    assert answer.read().startswith(b"{")
    assert psutil.Process().memory_info().rss - before < 60 * MIB
    connection.close()


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/queues", "/api/v1/jobs/1/events"])
def test_refusals_are_problem_documents_under_asgi_too(web: str, path: str, transactional_db: None) -> None:
    connection = connect(web)

    connection.request("GET", path)
    answer: Any = connection.getresponse()

    assert answer.status in (401, 404)
    assert answer.headers["Content-Type"] == "application/problem+json"
    connection.close()
