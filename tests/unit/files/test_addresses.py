"""Addresses of storages and results: every refusal names the variable, the fault and a good value, and no secret."""

from __future__ import annotations

import pytest

from switchyard import setting_values
from switchyard.files.addresses import address_of, results_of
from switchyard.setting_values import InvalidSetting

NAME = "SWITCHYARD_STORAGE_URL"
RESULTS = "SWITCHYARD_RESULTS_URL"


def test_an_address_of_s3_is_read_whole() -> None:
    url = "s3://yard-files/prod/eu?endpoint_url=https://s3.example.com:9000/&region=eu-1&path_style=1&link_s=300"

    address = address_of(NAME, url)

    assert address.entry == {
        "BACKEND": "switchyard.files.s3.S3Bucket",
        "OPTIONS": {
            "bucket_name": "yard-files", "location": "prod/eu", "endpoint_url": "https://s3.example.com:9000",
            "region_name": "eu-1", "addressing_style": "path", "querystring_expire": 300,
        },
    }  # fmt: skip


def test_a_folder_and_a_bucket_of_google_are_addresses() -> None:
    assert address_of(NAME, "file:///srv/with%20space").folder == "/srv/with space"
    assert address_of(NAME, "gs://yard-files?project=yard").options == {"project_id": "yard"}


@pytest.mark.parametrize(
    ("url", "fact"),
    [
        ("", "is not a URL"),
        ("/srv/media", "is not a URL"),
        ("ftp://bucket", "'ftp' is none of file, s3, gs"),
        ("s3://", "'' is not a name of a bucket"),
        ("s3://ab", "'ab' is not a name of a bucket"),
        ("s3://bucket/../up", "is not a prefix of keys"),
        ("s3://key:hunter2@bucket", "holds a user, a password or a port"),
        ("s3://bucket:hunter2", "is not a URL"),
        ("s3://bucket?acl=public-read", "'acl' is not an option of s3:"),
        ("s3://bucket?path_style=yes", "path_style='yes' is neither 0 nor 1"),
        ("s3://bucket?link_s=604801", "link_s='604801' is not a number from 0 to 604,800"),
        ("s3://bucket?endpoint_url=minio:9000", "endpoint_url is not an http: or https: address"),
        ("s3://bucket?endpoint_url=http://key:hunter2@minio", "or holds a password"),
        ("s3://bucket?region=a b", "region='a b' is not a name"),
        ("gs://bucket?link_s=300", "'link_s' is not an option of gs:"),
        ("file://srv/media", "names the host 'srv'"),
        ("file:", "names no folder"),
        ("file:///srv?x=1", "'x' is not an option of file:"),
    ],
)
def test_an_unusable_address_is_refused_with_a_good_one(url: str, fact: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        address_of(NAME, url)

    text = str(refused.value)
    assert text.startswith(f"{NAME}: ")
    assert fact in text and "; " in text
    assert "hunter2" not in text


def test_a_storage_whose_package_is_missing_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(setting_values.PACKAGES, "s3", ("boto3 storages_that_are_not_here", "boto3>=1", "s3"))

    with pytest.raises(
        InvalidSetting, match=r"needs the package boto3, .*; run: pip install 'boto3>=1', which the extra"
    ):
        address_of(NAME, "s3://bucket")


def test_each_store_has_an_address() -> None:
    assert results_of(RESULTS, "").kind == results_of(RESULTS, "broker:").kind == "broker"
    assert results_of(RESULTS, "database:").kind == "database"
    assert results_of(RESULTS, "class:mysite.results.Mine").path == "mysite.results.Mine"
    found = results_of(RESULTS, "s3://results/yard?region=eu-1")
    assert (found.kind, found.bucket and found.bucket.bucket) == ("s3", "results")


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ("redis://:hunter2@host", "'redis' is none of broker, database, s3, gs, class; use for example database:"),
        ("cassandra://host", "cassandra: is not supported; write a class with put and get, and name it: class:"),
        ("database:other", "has more than database: needs; write database:"),
        ("class:Mine", "names no class; use for example class:mysite.results.MyResults"),
        ("s3://a", "'a' is not a name of a bucket"),
    ],
)
def test_an_unusable_store_of_results_is_refused_with_a_good_one(value: str, fact: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        results_of(RESULTS, value)

    assert f"{RESULTS}: {fact}" in str(refused.value) and "hunter2" not in str(refused.value)
