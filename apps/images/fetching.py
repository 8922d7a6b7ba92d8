"""Bytes of a picture, limited in size and time: from its URL, or from the stored upload."""

from __future__ import annotations

from dataclasses import dataclass

from apps.images.errors import FetchFailed, PictureRefused
from apps.images.models import Picture
from apps.outbound.addresses import read_url
from apps.outbound.errors import ForbiddenAddress, OutboundError, TooLarge
from apps.outbound.http import Response, send

MAX_BYTES = 20 * 1024 * 1024
DEADLINE_S = 20.0
# Client errors that may be gone in a later attempt.
PASSING = (408, 425, 429)


@dataclass(frozen=True, slots=True)
class Found:
    """A picture's bytes, and the type and name claimed for them. ``path`` is the URL's, or the uploaded file's name."""

    content: bytes
    content_type: str
    path: str
    is_url: bool


def get(picture: Picture) -> Found:
    """Fetch a picture, or read its stored upload.

    Raises:
        PictureRefused: it is gone, too large, redirected, or its address is forbidden.
        FetchFailed: no answer, or an error that may be temporary.
    """
    if picture.source_url:
        return _fetched(picture.source_url)
    return _uploaded(picture)


def _fetched(url: str) -> Found:
    try:
        response = send("GET", url, headers={"accept": "image/*"}, deadline_s=DEADLINE_S, max_bytes=MAX_BYTES)
        place = read_url(url)
    except ForbiddenAddress as error:
        raise PictureRefused(f"its URL {error.fact}", error.remedy) from error
    except TooLarge as error:
        raise PictureRefused(error.fact, "link to a smaller one") from error
    except OutboundError as error:
        raise FetchFailed(read_url(url).host, error.fact) from error
    _check_status(place.host, response)
    return Found(response.body, response.headers.get("content-type", ""), place.target.partition("?")[0], is_url=True)


def _check_status(host: str, response: Response) -> None:
    status = response.status
    if 300 <= status < 400:
        raise PictureRefused(f"{host} answered {status}, a redirect", "link to the picture itself")
    if 400 <= status < 500 and status not in PASSING:
        raise PictureRefused(f"{host} answered {status}", "link to a picture that is there")
    if status != 200:
        raise FetchFailed(host, f"answered {status}")


def _uploaded(picture: Picture) -> Found:
    try:
        with picture.file.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, ValueError):
        raise PictureRefused("its uploaded file is gone", "send it again") from None
    if len(content) > MAX_BYTES:
        raise PictureRefused(f"is larger than {MAX_BYTES} bytes", "send a smaller one")
    return Found(content, picture.sent_type, picture.sent_name, is_url=False)
