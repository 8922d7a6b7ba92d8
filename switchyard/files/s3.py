"""Storage on S3 and servers that speak its protocol, by boto3. Credentials come from the environment of boto3."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from django.utils.http import content_disposition_header

from switchyard.files.addresses import StorageAddress
from switchyard.files.bucket import DIGEST, Body, BucketStorage, FileEntry, Stored
from switchyard.files.errors import ExtraMissing, StorageUnavailable

CONNECT_S: Final = 2.0
READ_S: Final = 30.0
ATTEMPTS: Final = 3
# After the last answer to an upload's end was an error, the object may still appear for so long.
COMPLETED_S: Final = 10.0
LOOK_EVERY_S: Final = 1.0
MISSING: Final = ("404", "NoSuchKey", "NotFound")


class S3Storage(BucketStorage):
    """Django's storage on a bucket of S3.

    Args:
        connect_s, read_s, attempts: Limits of one request; a page or a job waits for their product at most.
    """

    def __init__(
        self,
        address: StorageAddress,
        *,
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
        attempts: int = ATTEMPTS,
    ) -> None:
        super().__init__(address)
        self._limits = (connect_s, read_s, attempts)
        # Process id and client: connections are not shared with the process that this one was forked from.
        self._made: tuple[int, Any] | None = None
        self._making = threading.Lock()

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """Return what makes an equal storage."""
        return (f"{type(self).__module__}.{type(self).__name__}", [], {"address": self.address})

    def prepare(self) -> None:
        """Load the client."""
        _ = self.client

    def quick(self) -> S3Storage:
        """Return a storage at the same address that asks once, for 0.7 s to connect and 1.2 s to answer."""
        return S3Storage(self.address, connect_s=0.7, read_s=1.2, attempts=1)

    def close(self) -> None:
        """Close the connections of this process; the next request opens others."""
        made, self._made = self._made, None
        if made is not None and made[0] == os.getpid():
            made[1].close()

    def reach(self) -> None:
        """List one name. Raises ``StorageUnavailable`` when the bucket is not there, or refuses this user.

        A list has the error's code in its body: the answer to HEAD has none, so that an expired token is only "400".
        """
        prefix = f"{self.address.prefix}/" if self.address.prefix else ""  # the rights may end there
        with _translated("reach its bucket"):
            self.client.list_objects_v2(Bucket=self.address.bucket, Prefix=prefix, MaxKeys=1)

    @property
    def client(self) -> Any:
        """The process's client, which threads share."""
        made, pid = self._made, os.getpid()
        if made is None or made[0] != pid:
            with self._making:
                made = self._made
                if made is None or made[0] != pid:
                    made = self._made = (pid, self._connect())
        return made[1]

    def look(self, key: str) -> Stored | None:
        """Return the description of an object, or ``None``."""
        try:
            with _translated(f"find {key}"):
                answer = self.client.head_object(Bucket=self.address.bucket, Key=key)
        except FileNotFoundError:
            return None
        digest = answer.get("Metadata", {}).get(DIGEST, "")
        return Stored(answer["ContentLength"], digest, answer.get("ETag", ""), answer["LastModified"])

    def body_of(self, key: str, start: int, stored: Stored) -> Body:
        """Return the content from a byte on, of the version that was described."""
        asked = {"Range": f"bytes={start}-"} if start else {}
        with _translated(f"read {key}"):
            answer = self.client.get_object(Bucket=self.address.bucket, Key=key, IfMatch=stored.version, **asked)
        return _Content(answer["Body"], key)

    def write(self, key: str, parts: Iterator[bytes], *, sha256: str, content_type: str) -> None:
        """Write an object, in one request or in parts; an upload that fails leaves nothing."""
        where = {"Bucket": self.address.bucket, "Key": key}
        about = {"Metadata": {DIGEST: sha256}, "ContentType": content_type}
        first = next(parts)
        second = next(parts, None)
        with _translated(f"write {key}"):
            if not second:
                self.client.put_object(**where, **about, Body=first, **self._checksum(first))
                return
            algorithm = {"ChecksumAlgorithm": "SHA256"} if self.address.checksums else {}
            upload = self.client.create_multipart_upload(**where, **about, **algorithm)["UploadId"]
            try:
                sent = [self._part(where, upload, 1, first), self._part(where, upload, 2, second)]
                del first, second
                for part in parts:
                    if part:
                        sent.append(self._part(where, upload, len(sent) + 1, part))
                self._complete(where, upload, sent, sha256)
            except BaseException:
                # A time limit or a shutdown as well. What a killed process leaves is for the bucket's lifecycle rule.
                with contextlib.suppress(Exception):
                    self.client.abort_multipart_upload(**where, UploadId=upload)
                raise

    def remove(self, key: str) -> None:
        """Remove an object, if there is one."""
        with _translated(f"remove {key}"):
            self.client.delete_object(Bucket=self.address.bucket, Key=key)

    def names_below(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return folders and files directly below a prefix."""
        folders, files = [], []
        with _translated(f"list {prefix}"):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.address.bucket, Prefix=prefix, Delimiter="/"):
                folders += [found["Prefix"][len(prefix) :].rstrip("/") for found in page.get("CommonPrefixes", ())]
                files += [name for found in page.get("Contents", ()) if (name := found["Key"][len(prefix) :])]
        return folders, files

    def objects_below(self, prefix: str, after: str) -> Iterator[FileEntry]:
        """Yield every object below a prefix, a thousand for each request."""
        asked = {"Bucket": self.address.bucket, "Prefix": prefix} | ({"StartAfter": after} if after else {})
        with _translated(f"list {prefix}"):
            for page in self.client.get_paginator("list_objects_v2").paginate(**asked):
                for found in page.get("Contents", ()):
                    yield FileEntry(found["Key"], found["Size"], found["LastModified"])

    def signed(self, key: str, *, filename: str, content_type: str) -> str:
        """Return a link to one object, signed here without a request: always an attachment."""
        asked = {
            "Bucket": self.address.bucket,
            "Key": key,
            "ResponseContentDisposition": content_disposition_header(True, filename) or "attachment",
            "ResponseContentType": content_type,
            "ResponseCacheControl": "private, no-store",
        }
        with _translated(f"sign a link to {key}"):
            return str(self.client.generate_presigned_url("get_object", asked, ExpiresIn=self.address.link_s))

    def _part(self, where: dict[str, str], upload: str, number: int, part: bytes) -> dict[str, Any]:
        checksum = self._checksum(part)
        answer = self.client.upload_part(**where, UploadId=upload, PartNumber=number, Body=part, **checksum)
        return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

    def _complete(self, where: dict[str, str], upload: str, sent: list[dict[str, Any]], sha256: str) -> None:
        """Make one object of the parts.

        A large object takes the server seconds. A request that is repeated after its time limit finds no such upload,
        or an error, where the first one has succeeded or still works: what counts is the object.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": sent})
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and not _may_have_succeeded(error.response):
                raise
            ends_s = time.monotonic() + COMPLETED_S
            while (stored := self.look(where["Key"])) is None or stored.sha256 != sha256:
                if time.monotonic() >= ends_s:
                    raise
                time.sleep(LOOK_EVERY_S)

    def _checksum(self, part: bytes) -> dict[str, str]:
        if not self.address.checksums:
            return {}
        return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(part).digest()).decode()}

    def _connect(self) -> Any:
        import boto3  # takes 0.2 s, and only yards on S3 have it
        from botocore.config import Config

        _hush()
        connect_s, read_s, attempts = self._limits
        config = Config(
            connect_timeout=connect_s,
            read_timeout=read_s,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            max_pool_connections=32,
            signature_version="s3v4",
            s3={"addressing_style": "path" if self.address.path_style else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        with _translated("start a client"):
            return boto3.session.Session().client(
                "s3",
                endpoint_url=self.address.endpoint_url or None,
                region_name=self.address.region or os.environ.get("AWS_REGION") or None,
                config=config,
            )


def _hush() -> None:
    """Keep the line about the place of the credentials, which each process would log, out of the logs."""
    logger = logging.getLogger("botocore.credentials")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)


def _may_have_succeeded(answer: Any) -> bool:
    """Return whether an error may be the answer to a repetition of what has succeeded."""
    status, code = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0), answer.get("Error", {}).get("Code")
    return code == "NoSuchUpload" or bool(status >= 500)


class _Content:
    """Content of an answer, with the errors of a storage."""

    def __init__(self, body: Any, key: str) -> None:
        self._body, self._key = body, key

    def read(self, count: int, /) -> bytes:
        with _translated(f"read {self._key}"):
            data: bytes = self._body.read(count)
        return data

    def close(self) -> None:
        self._body.close()


@contextlib.contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Raise the client's errors as those of a storage. Their texts hold addresses, so only their names are kept."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    except ImportError as error:
        raise ExtraMissing("boto3", "s3") from error
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in MISSING and not operation.startswith("reach"):
            raise FileNotFoundError(f"the storage has nothing to {operation}") from None
        raise StorageUnavailable(operation, code or "refused") from error
    except (BotoCoreError, HTTPClientError) as error:
        raise StorageUnavailable(operation, type(error).__name__) from error
    except RecursionError as error:  # botocore asks for the region again and again where a redirect names none
        raise StorageUnavailable(operation, "PermanentRedirect") from error
