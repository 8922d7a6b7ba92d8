"""Addresses of the store of results."""

from __future__ import annotations

import pytest

from switchyard.files.result_addresses import results_of
from switchyard.setting_values import InvalidSetting

NAME = "SWITCHYARD_RESULTS_URL"


def test_each_store_has_an_address() -> None:
    assert results_of(NAME, "").kind == results_of(NAME, "broker:").kind == "broker"
    assert results_of(NAME, "database:").kind == "database"
    assert results_of(NAME, "class:mysite.results.Mine").path == "mysite.results.Mine"
    found = results_of(NAME, "s3://results/yard?region=eu-1")
    assert (found.kind, found.bucket and found.bucket.bucket) == ("s3", "results")


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("redis://:hunter2@host", "'redis' is none of broker, database, s3, gs, class; use for example database:"),
        ("cassandra://host", "cassandra: is not supported; write a class with put and get, and name it: class:"),
        ("database:other", "has more than database: needs; write database:"),
        ("class:Mine", "names no class; use for example class:mysite.results.MyResults"),
        ("s3://a", "'a' is no name of a bucket"),
    ],
)
def test_an_unusable_address_is_refused_with_a_good_one(value: str, fact: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        results_of(NAME, value)

    assert f"{NAME}: {fact}" in str(refused.value)
    assert "hunter2" not in str(refused.value)
