"""A server that speaks S3 (moto), as a process of its own that a test may stop, and buckets on it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from switchyard.embedded.server import free_port
from switchyard.files.addresses import StorageAddress, address_of
from tests.waiting import wait_for

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIAYARDTESTS0000000", "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests"}


class S3Server:
    """The server on one port. It keeps objects in memory: a stopped process (SIGSTOP) keeps them, a killed one not."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._log = (folder / f"s3-{self.port}.log").open("wb")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> Self:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": "50"}
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environment)
        wait_for(self._answers, what="the S3 server to answer")
        return self

    def stop(self) -> None:
        """Kill it: connections are refused, and its objects are gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Keep it from answering for a while; it keeps its objects."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def bucket(self, options: str = "") -> StorageAddress:
        import boto3

        name = f"yard-{uuid.uuid4().hex[:12]}"
        client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1")
        client.create_bucket(Bucket=name)
        client.close()
        return address_of("TEST", self.address(name, options))

    def address(self, bucket: str, options: str = "") -> str:
        return f"s3://{bucket}/yard?endpoint_url={self.url}&region=us-east-1&path_style=1{options}"

    def close(self) -> None:
        self.stop()
        self._log.close()

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the S3 server ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False
