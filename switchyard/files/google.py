"""Storage on Google Cloud Storage. Credentials are the application's default ones."""

from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import Any

from google.auth import default
from google.auth.exceptions import TransportError
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Client
from requests import RequestException
from storages.backends.gcloud import GoogleCloudStorage

from switchyard.files.addresses import StorageUnavailable
from switchyard.files.bucket import CONNECT_S, READ_S, SPOOL_BYTES, BucketStorage, translated


class BoundedSession(AuthorizedSession):
    """Requests that end in time. Their error is one that Google's client does not repeat for two minutes."""

    def request(self, method: Any, url: Any, *args: Any, **asked: Any) -> Any:
        """Send a request; raise ``StorageUnavailable`` for one that has no answer, or may be repeated."""
        try:
            answer = super().request(method, url, *args, **{**asked, "timeout": (CONNECT_S, READ_S)})
        except (RequestException, TransportError) as error:
            raise StorageUnavailable("answer", type(error).__name__) from error
        if answer.status_code == 429 or answer.status_code >= 500:
            raise StorageUnavailable("answer", f"HTTP {answer.status_code}")
        return answer


class GoogleBucket(BucketStorage, GoogleCloudStorage):
    """Storage of ``django-storages``. Downloads go through the web: a link needs a private key of its own."""

    scheme = "gs"

    def get_default_settings(self) -> dict[str, Any]:
        return {
            **super().get_default_settings(),
            "default_acl": None,
            "file_overwrite": False,
            "object_parameters": {},
            "max_memory_size": SPOOL_BYTES,
            "blob_chunk_size": SPOOL_BYTES,
        }

    @cached_property
    def client(self) -> Any:
        """The client, whose requests end in time."""
        credentials, project = (self.credentials, None) if self.credentials else default(scopes=Client.SCOPE)
        return Client(self.project_id or project, credentials, _http=BoundedSession(credentials))

    def objects_below(self, prefix: str, after: str) -> Iterator[tuple[str, int, datetime]]:
        with translated("list", prefix):
            for blob in self.bucket.list_blobs(prefix=prefix, start_offset=after or None):
                if blob.name > after:  # Google's offset includes the name itself
                    yield blob.name, int(blob.size), blob.updated
