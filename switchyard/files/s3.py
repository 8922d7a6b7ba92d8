"""Storage on S3 and servers that speak its protocol. Credentials come from the environment of boto3."""

from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from django.utils.http import content_disposition_header
from storages.backends.s3 import S3Storage

from switchyard.files.bucket import CONNECT_S, READ_S, SPOOL_BYTES, BucketStorage, translated


class S3Bucket(BucketStorage, S3Storage):
    """Storage of ``django-storages`` whose requests end in time; uploads have one part in memory.

    Args:
        checksums: Send checksums that the server verifies; without, only where S3 requires them.
        querystring_expire: Seconds for which a download link is valid; 0 downloads through the web.
    """

    scheme = "s3"

    def __init__(self, *, checksums: bool = True, **options: Any) -> None:
        super().__init__(**options)
        wanted = "when_supported" if checksums else "when_required"
        self.client_config: Config = self.client_config.merge(
            Config(
                connect_timeout=CONNECT_S,
                read_timeout=READ_S,
                retries={"total_max_attempts": 1},
                max_pool_connections=32,
                request_checksum_calculation=wanted,
                response_checksum_validation=wanted,
            )
        )

    def get_default_settings(self) -> dict[str, Any]:
        return {
            **super().get_default_settings(),
            "custom_domain": None,
            "default_acl": None,
            "file_overwrite": False,
            "max_memory_size": SPOOL_BYTES,
            "object_parameters": {},
            "querystring_expire": 0,
            "signature_version": "s3v4",
            "transfer_config": TransferConfig(use_threads=False),
        }

    @cached_property
    def connection(self) -> Any:
        """The connection of all threads: to make one takes half a second, and its client may be shared."""
        return super().connection

    def objects_below(self, prefix: str, after: str) -> Iterator[tuple[str, int, datetime]]:
        with translated("list", prefix):
            for found in self.bucket.objects.filter(Prefix=prefix, Marker=after):
                yield found.key, found.size, found.last_modified

    def download_link(self, name: str, *, filename: str, content_type: str) -> str:
        """Return a link to one file, signed here without a request: always an attachment."""
        if not self.querystring_expire:
            return ""
        asked = {
            "ResponseContentDisposition": content_disposition_header(True, filename) or "attachment",
            "ResponseContentType": content_type,
            "ResponseCacheControl": "private, no-store",
        }
        with translated("sign a link to", name):
            return str(S3Storage.url(self, name, parameters=asked))
