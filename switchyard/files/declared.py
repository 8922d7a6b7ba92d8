"""Django's storage for an address."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

from django.utils.module_loading import import_string

from switchyard.files.addresses import StorageAddress, address_of
from switchyard.setting_values import InvalidSetting, refuse_without_package

if TYPE_CHECKING:
    from switchyard.files.bucket import BucketStorage

BACKENDS: Final = {
    "file": "switchyard.jobs.storage.WholeFileStorage",
    "s3": "switchyard.files.s3.S3Storage",
    "gs": "switchyard.files.google.GoogleStorage",
}


def usable_address_of(name: str, value: str) -> StorageAddress:
    """Return a validated address whose client is installed.

    Args:
        name: Variable or setting, for the error.

    Raises:
        InvalidSetting: see ``address_of``; or the package is not installed.
    """
    address = address_of(name, value)
    refuse_without_package(name, address.scheme)
    return address


def declared_storage(name: str, value: str) -> dict[str, Any]:
    """Return the entry of ``STORAGES`` for the address in a project's own settings.

    An address that cannot be used, or whose client is not installed, exits the process with 78: in the middle of a
    project's settings nothing else would catch the error.

    Args:
        name: Setting or variable that the address was read from, for the error.
    """
    try:
        return storage_of(usable_address_of(name, value))
    except InvalidSetting as error:
        sys.stderr.write(f"switchyard: refused to start: {error}\n")
        raise SystemExit(os.EX_CONFIG) from error


def storage_of(address: StorageAddress) -> dict[str, Any]:
    """Return the entry of ``STORAGES`` for an address. A folder is that of ``MEDIA_ROOT``, which the project sets."""
    if address.scheme == "file":
        return {"BACKEND": BACKENDS["file"]}
    return {"BACKEND": BACKENDS[address.scheme], "OPTIONS": {"address": address}}


def storage_at(address: StorageAddress) -> BucketStorage:
    """Return the storage of a bucket."""
    storage: BucketStorage = import_string(BACKENDS[address.scheme])(address)
    return storage
