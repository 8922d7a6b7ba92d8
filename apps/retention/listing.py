"""All files below a folder of a storage, in a fixed order, with their sizes and times, from any file on."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from django.core.files.storage import FileSystemStorage, Storage

from switchyard.files.bucket import BucketStorage

_OWN_FOLDER = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a listing, by its name in the storage."""

    name: str
    size_bytes: int
    modified_at: datetime


def files_below(storage: Storage, folder: str, *, after: str = "") -> Iterator[FileEntry]:
    """Yield the files below a folder, also those in folders of it.

    Args:
        after: Name of the file after which to begin, from an earlier call; it may be gone.

    Raises:
        StorageUnavailable: the storage did not answer.
    """
    if isinstance(storage, BucketStorage):
        start = f"{storage.location}/" if storage.location else ""
        for key, size_bytes, modified_at in storage.objects_below(
            f"{start}{folder}/", f"{start}{after}" if after else ""
        ):
            yield FileEntry(key.removeprefix(start), size_bytes, modified_at)
    else:
        parts = tuple(after.removeprefix(f"{folder}/").split("/")) if after else ()
        yield from _on_disk(Path(storage.path(folder)), folder, parts)


def remove_file(storage: Storage, name: str) -> None:
    """Remove a file, if there is one, and on a disk the folder that a result has for itself.

    Raises:
        StorageUnavailable: the storage did not answer.
    """
    storage.delete(name)
    if isinstance(storage, FileSystemStorage) and _OWN_FOLDER.fullmatch(Path(name).parent.name):
        with contextlib.suppress(OSError):  # another file is in it, or it is gone
            Path(storage.path(name)).parent.rmdir()


def _on_disk(folder: Path, name: str, after: tuple[str, ...]) -> Iterator[FileEntry]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:  # nothing was stored yet, or the folder was removed meanwhile
        return
    first = after[0] if after else ""
    for entry in entries:
        if entry.name < first:
            continue
        inner = after[1:] if entry.name == first else ()
        if entry.is_dir(follow_symlinks=False):
            yield from _on_disk(folder / entry.name, f"{name}/{entry.name}", inner)
        elif entry.is_file(follow_symlinks=False) and entry.name != first:
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat(follow_symlinks=False)
                modified_at = datetime.fromtimestamp(about.st_mtime, tz=UTC)
                yield FileEntry(f"{name}/{entry.name}", about.st_size, modified_at)
