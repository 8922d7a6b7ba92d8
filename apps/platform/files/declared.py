"""Django's storage for an address."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from django.utils.module_loading import import_string

from apps.platform.files.addresses import StorageAddress, address_of
from apps.platform.setting_values import InvalidSetting

if TYPE_CHECKING:
    from apps.platform.files.bucket import BucketStorage

BACKENDS: Final = {
    "file": "apps.platform.jobs.storage.WholeFileStorage",
    "s3": "apps.platform.files.s3.S3Storage",
    "gs": "apps.platform.files.google.GoogleStorage",
}
# Module that a scheme needs, and the package that has it.
PACKAGES: Final = {"s3": ("boto3", "boto3"), "gs": ("google.cloud.storage", "google-cloud-storage")}


def usable_address_of(name: str, value: str) -> StorageAddress:
    """Return a validated address whose client is installed.

    Args:
        name: Variable or setting, for the error.

    Raises:
        InvalidSetting: see ``address_of``; or the package is not installed.
    """
    address = address_of(name, value)
    module, package = PACKAGES.get(address.scheme, ("", ""))
    if module and not _has(module):
        fact = f"{address.scheme}: needs the package {package}, which is not installed"
        raise InvalidSetting(name, fact, f"run: pip install {package}")
    return address


def storage_of(address: StorageAddress) -> dict[str, Any]:
    """Return the entry of ``STORAGES`` for an address. A folder is that of ``MEDIA_ROOT``, which the project sets."""
    if address.scheme == "file":
        return {"BACKEND": BACKENDS["file"]}
    return {"BACKEND": BACKENDS[address.scheme], "OPTIONS": {"address": address}}


def storage_at(address: StorageAddress) -> BucketStorage:
    """Return the storage of a bucket."""
    storage: BucketStorage = import_string(BACKENDS[address.scheme])(address)
    return storage


def _has(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent of it
        return False
