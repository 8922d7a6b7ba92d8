"""The host that the errors of an actor name."""

from __future__ import annotations

import time

import pytest

from switchyard.operations.findings.actors import MOST_ROWS, host_of


@pytest.mark.parametrize(
    ("error", "host", "fact"),
    [
        (
            "hooks.example.com:8443: refused the connection; try again",
            "hooks.example.com:8443",
            "refused the connection",
        ),
        ("HTTPSConnectionPool(host='api.example.com', port=443)", "api.example.com", ""),
        ("500 for url: https://ada:secret@pay.example.com/v1", "pay.example.com", ""),
        ("division by zero", "", ""),
    ],
)
def test_the_host_is_that_which_most_errors_name(error: str, host: str, fact: str) -> None:
    assert host_of([error] * 5) == (host, fact)


@pytest.mark.parametrize("text", ["a." * 1_000, ("a" * 60 + ".") * 40, "http://" * 300, "a.b: " * 400])
def test_long_answers_of_a_foreign_server_cost_little(text: str) -> None:
    began_s = time.process_time()

    host_of(f"{number} {text}" for number in range(MOST_ROWS))

    assert time.process_time() - began_s < 2
