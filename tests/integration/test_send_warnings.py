"""Sends inside a transaction are reported in development; a worker of an undeclared queue fails its test."""

import logging

import dramatiq
import pytest
from django.db import transaction
from dramatiq.brokers.stub import StubBroker

from switchyard.jobs.services import enqueue_on_commit
from switchyard.send_warnings import TransactionWarnings

HERE = "tests/integration/test_send_warnings.py"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hello(settings):
    """An actor of a broker as it is in development."""
    settings.DEBUG = True
    broker = StubBroker(middleware=[TransactionWarnings()])

    @dramatiq.actor(broker=broker)
    def hello(name: str) -> None: ...

    yield hello
    broker.close()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_send_inside_a_transaction_is_reported_once_for_each_place(hello, caplog):
    with transaction.atomic():
        for _ in range(3):
            hello.send("Ada")
        hello.send_with_options(args=("Ada",), delay=1_000)

    first, second = said(caplog)
    line = hello.fn.__code__.co_firstlineno
    assert first.startswith(f"actor hello: sent inside a transaction at {HERE}:")
    assert int(first.partition(f"{HERE}:")[2].partition(";")[0]) > line
    assert "write SWITCHYARD = {'SENDS': 'on_commit'}" in first
    assert first.partition(HERE)[2].partition(";")[0] != second.partition(HERE)[2].partition(";")[0]


def test_what_waits_for_the_commit_or_has_no_transaction_is_not_reported(hello, caplog):
    hello.send("Ada")
    with transaction.atomic():
        enqueue_on_commit(hello, "Ada")

    assert said(caplog) == []


def test_production_and_tests_are_not_warned(hello, caplog, settings):
    settings.DEBUG = False

    with transaction.atomic():
        hello.send("Ada")

    assert said(caplog) == []


def test_a_worker_of_an_undeclared_queue_fails_its_test(valkey, run_worker):
    words = r"queue 'defalt' is not declared; the yard has .*default"
    with pytest.raises(pytest.fail.Exception, match=words), run_worker("defalt"):
        pass
