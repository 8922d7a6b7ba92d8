"""Checks of a picture's claimed name and content type against its actual format."""

from __future__ import annotations

from pathlib import PurePosixPath

from apps.images.errors import PictureRefused

CONTENT_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}
# Content types without a claim, and synonyms of the accepted ones.
UNSPECIFIC = ("", "application/octet-stream", "binary/octet-stream", "image/*")
SYNONYMS = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/apng": "image/png",
}
SUFFIXES = {
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".webp": "WEBP",
    ".gif": "GIF",
}


def check_content_type(claimed: str, format_name: str) -> None:
    """Refuse a picture whose content type differs from its format.

    Args:
        claimed: Header as sent, parameters included; a type without a claim passes.

    Raises:
        PictureRefused: the claim is wrong.
    """
    essence = claimed.partition(";")[0].strip().lower()
    if essence not in UNSPECIFIC and SYNONYMS.get(essence, essence) != CONTENT_TYPES[format_name]:
        raise PictureRefused(f"came as {essence[:60]!r} and is {format_name}", "send its true content type")


def check_name(name: str, format_name: str, *, is_url: bool) -> None:
    """Refuse a picture whose name has the suffix of another file type.

    Args:
        is_url: The name is a URL's path, where suffixes of other types (``.php``) are no claim.

    Raises:
        PictureRefused: the claim is wrong.
    """
    suffix = PurePosixPath(name).suffix.lower()
    claimed = SUFFIXES.get(suffix)
    if claimed == format_name or (claimed is None and (is_url or not suffix)):
        return
    raise PictureRefused(f"is named {suffix[:20]!r} and is {format_name}", "give it its true ending")
