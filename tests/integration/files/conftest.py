import contextlib

import pytest

from tests.factories.s3 import CREDENTIALS, S3Server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        with contextlib.closing(S3Server(tmp_path_factory.mktemp("s3")).start()) as server:
            yield server


@pytest.fixture
def own_s3_server(tmp_path, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with contextlib.closing(S3Server(tmp_path).start()) as server:
        yield server


@pytest.fixture
def bucket(s3_server):
    return s3_server.bucket()


@pytest.fixture
def on_s3(settings, bucket):
    """The project's storage is a bucket, and no local folder is set."""
    settings.STORAGES = {**settings.STORAGES, "default": bucket.entry}
    settings.MEDIA_ROOT = "/nonexistent"
    return bucket
