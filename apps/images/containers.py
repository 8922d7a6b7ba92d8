"""Container data of a picture: format, size, frames and end, read without decoding.

Runs on the whole picture before Pillow opens it, since opening alone can cost gigabytes (a WebP header of 30 bytes
makes the library reserve its whole canvas twice). All work is bounded by the counts below.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from apps.images.errors import PictureRefused

# Limits the memory of every format but JPEG, of which :mod:`costs` reckons the rest.
MAX_PIXELS = {"JPEG": 50_000_000, "PNG": 25_000_000, "WEBP": 16_000_000, "GIF": 25_000_000}
MAX_FRAMES = 500
MAX_PARTS = 30_000
MAX_GIF_BLOCKS = 200_000
MAX_SCANS = 100
MAX_FURTHER_PICTURES = 16
PDF_WITHIN_BYTES = 1024

_NEXT_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")
_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE_MARKERS = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


@dataclass(frozen=True, slots=True)
class Facts:
    """Container data. ``format`` is Pillow's name, ``frames`` is 1 for a still, ``end`` the length of the picture.

    Args:
        components: Colour components of a JPEG.
        coefficient_bytes: Memory in which libjpeg keeps a whole JPEG while it reads one scan after the other, at
            whatever fraction it decodes; 0 for a JPEG of a single scan.
    """

    format: str
    width: int
    height: int
    frames: int
    end: int
    components: int = 0
    coefficient_bytes: int = 0


def read_facts(content: bytes) -> Facts:
    """Read a picture's container from its first byte to its last.

    Raises:
        PictureRefused: it is no PNG, JPEG, WebP or GIF, is truncated, is too large or long, or has trailing data.
    """
    format_name = sniff(content)
    if format_name is None:
        raise PictureRefused("is no PNG, JPEG, WebP or GIF")
    try:
        facts = _READERS[format_name](content)
    except (struct.error, IndexError):
        raise _cut_off() from None
    _check(facts)
    if format_name == "JPEG":
        _skip_further_jpegs(content, facts.end)
    elif content[facts.end :].strip(b"\0\r\n "):
        raise _followed()
    if b"%PDF-" in content[:PDF_WITHIN_BYTES]:
        raise PictureRefused("is a PDF as well")
    return facts


def sniff(content: bytes) -> str | None:
    """Return the format of the first bytes, or ``None``."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if content.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    if content[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    return None


def _check(facts: Facts) -> None:
    if facts.width < 1 or facts.height < 1:
        raise PictureRefused(f"is {facts.width} by {facts.height} pixels")
    limit = MAX_PIXELS[facts.format]
    if facts.width * facts.height > limit:
        fact = f"is {facts.width} by {facts.height} pixels, as {facts.format} it may have {limit // 1_000_000} million"
        raise PictureRefused(fact, "make it smaller")
    if facts.frames > MAX_FRAMES:
        raise PictureRefused(f"has more than {MAX_FRAMES} frames", "shorten it")


def _read_png(content: bytes) -> Facts:
    if content[12:16] != b"IHDR":
        raise PictureRefused("is a PNG without its header")
    width, height = struct.unpack_from(">II", content, 16)
    frames, at = 1, 8
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"acTL":
            frames = max(1, struct.unpack_from(">I", content, at + 8)[0])
        at += 12 + length
        if at > len(content):
            raise _cut_off()
        if kind == b"IEND":
            return Facts("PNG", width, height, frames, at)
    raise _too_many()


def _read_gif(content: bytes) -> Facts:
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    at = 13 + _colours(flags)
    frames = parts = 0
    while frames <= MAX_FRAMES:
        kind = content[at]
        if kind == 0x3B:
            return Facts("GIF", width, height, frames, at + 1) if frames else _no_frame()
        if kind == 0x2C:
            left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", content, at + 1)
            if left + frame_width > width or top + frame_height > height:
                raise PictureRefused("has a frame that is larger than the picture")
            frames += 1
            at += 11 + _colours(flags)
        elif kind == 0x21:
            at += 2
        else:
            raise PictureRefused("is a GIF with an invalid part")
        while True:
            parts += 1
            if parts > MAX_GIF_BLOCKS:
                raise _too_many()
            size = content[at]
            at += 1 + size
            if size == 0:
                break
    return Facts("GIF", width, height, frames, at)


def _colours(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _no_frame() -> Facts:
    raise PictureRefused("is a GIF without a frame")


def _read_webp(content: bytes) -> Facts:
    end = 8 + struct.unpack_from("<I", content, 4)[0]
    if end > len(content):
        raise _cut_off()
    width, height = _webp_size(content)
    frames, at = 0, 12
    for _ in range(MAX_PARTS):
        if at + 8 > end or frames > MAX_FRAMES:
            return Facts("WEBP", width, height, max(1, frames), end)
        kind, length = struct.unpack_from("<4sI", content, at)
        frames += kind == b"ANMF"
        at += 8 + length + length % 2
        if at > end + 1:
            raise _cut_off()
    raise _too_many()


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(content[24:27], "little"), 1 + int.from_bytes(content[27:30], "little")
    if kind == b"VP8L" and content[20] == 0x2F:
        bits = struct.unpack_from("<I", content, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise PictureRefused("is a WebP without its header")


def _read_jpeg(content: bytes, start: int = 0) -> Facts:
    size: tuple[int, int] | None = None
    at, scans = start + 2, 0
    sampling: list[tuple[int, int]] = []
    several_scans = False
    for _ in range(MAX_PARTS):
        found = _NEXT_MARKER.match(content, at)
        if found is None:
            raise _cut_off() if at >= len(content) - 1 else PictureRefused("is a JPEG with an invalid part")
        marker, at = content[found.end() - 1], found.end()
        if marker == 0xD9:
            if size is None or not scans:
                raise PictureRefused("is a JPEG without a picture")
            kept_bytes = _coefficient_bytes(*size, sampling) if several_scans else 0
            return Facts("JPEG", *size, frames=1, end=at, components=len(sampling), coefficient_bytes=kept_bytes)
        if marker in (0x01, 0xD8):
            raise PictureRefused("is a JPEG with an invalid part")
        length = struct.unpack_from(">H", content, at)[0]
        if marker in _SIZE_MARKERS:
            height, width = struct.unpack_from(">HH", content, at + 3)
            if size is not None:
                raise PictureRefused("is a JPEG that gives its size twice")
            size = (width, height)
            sampling = [divmod(content[at + 9 + 3 * number], 16) for number in range(content[at + 7])]
            several_scans = marker in _PROGRESSIVE_MARKERS
        if marker == 0xDA:
            # A scan of some components alone means that others follow.
            several_scans |= content[at + 2] < len(sampling)
        at += length
        if marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                raise _too_many()
            following = _NEXT_MARKER.search(content, at)
            if following is None:
                raise _cut_off()
            at = following.start()
    raise _too_many()


def _coefficient_bytes(width: int, height: int, sampling: list[tuple[int, int]]) -> int:
    """Return the memory of all coefficients, two bytes each, in blocks of 8 by 8 that fill whole units."""
    if not sampling or not all(1 <= factor <= 4 for factors in sampling for factor in factors):
        raise PictureRefused("is a JPEG with an invalid part")
    across, down = max(factors[0] for factors in sampling), max(factors[1] for factors in sampling)
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    return units * sum(horizontal * vertical for horizontal, vertical in sampling) * 64 * 2


def _skip_further_jpegs(content: bytes, end: int) -> None:
    """Accept whole JPEGs after the end, as cameras append them (previews, gain maps), and nothing else."""
    for _ in range(MAX_FURTHER_PICTURES):
        rest = content[end:].lstrip(b"\0")
        if not rest.strip(b"\0\r\n "):
            return
        if not rest.startswith(b"\xff\xd8\xff"):
            raise _followed()
        try:
            end = _read_jpeg(content, len(content) - len(rest)).end
        except (struct.error, IndexError):
            raise _followed() from None
    raise _followed()


def _cut_off() -> PictureRefused:
    return PictureRefused("is cut off", "send all of it")


def _followed() -> PictureRefused:
    return PictureRefused("is followed by something else", "send only the picture")


def _too_many() -> PictureRefused:
    return PictureRefused("has too many parts", "save it anew")


_READERS = {"PNG": _read_png, "GIF": _read_gif, "WEBP": _read_webp, "JPEG": _read_jpeg}
