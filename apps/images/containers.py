"""Format and size of a picture, read by Pillow from its headers, before anything is decoded.

What Pillow's readers do not bound is bounded here: how often they read (a file of a million empty parts takes minutes),
the canvas of a WebP (whose library reserves it twice when it opens one of 30 bytes), and the scans of a JPEG.
"""

import io
import re
import struct
import warnings
from dataclasses import dataclass

from PIL import Image, PngImagePlugin

from apps.images.errors import PictureRefused

# Highest memory of a picture beside its file. The numbers of pixels keep below it (measured: a progressive JPEG in CMYK
# holds eight bytes of coefficients for each pixel, and WebP's library its canvas three times).
MAX_PICTURE_BYTES = 300_000_000
MAX_PIXELS = {"JPEG": 24_000_000, "PNG": 25_000_000, "WEBP": 16_000_000, "GIF": 25_000_000}
MAX_READS = 20_000
MAX_SCANS = 100
# Compressed text of a PNG, which nothing reads. Pillow's own limit is 64 MiB, which may take four times as much.
MAX_TEXT_BYTES = 2**21
SCAN = b"\xff\xda"
# Names of Pillow's formats.
BEGINNING = re.compile(
    rb"(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<WEBP>RIFF....WEBP)|(?P<GIF>GIF8[79]a)", re.S
)

# Exceptions of Pillow's readers on broken or hostile content.
BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError, RuntimeError),
    *(ZeroDivisionError, MemoryError, struct.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """Format (Pillow's name) and size of a picture."""

    format: str
    width: int
    height: int


class _BoundedFile(io.BytesIO):
    """A file in memory that may be read so many times."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise PictureRefused("has too many parts", "save it anew")
        return super().read(size)


def read_facts(content: bytes) -> Facts:
    """Read the headers of a picture.

    Raises:
        PictureRefused: it is no PNG, JPEG, WebP or GIF, is broken, or is too large.
    """
    begins = BEGINNING.match(content)
    if begins is None or (format_name := begins.lastgroup) is None:
        raise PictureRefused("is not a PNG, JPEG, WebP or GIF")
    if format_name == "JPEG" and content.count(SCAN) > MAX_SCANS:
        raise PictureRefused("has too many parts", "save it anew")
    try:
        if format_name == "WEBP":
            _check(Facts("WEBP", *_webp_size(content)))
        facts = Facts(format_name, *open_picture(content, format_name).size)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        fact = f"has too many pixels, as {format_name} it may have {MAX_PIXELS[format_name] // 1_000_000} million"
        raise PictureRefused(fact, "make it smaller") from error
    except BROKEN as error:
        raise PictureRefused(f"cannot be read ({type(error).__name__})") from error
    _check(facts)
    return facts


def open_picture(content: bytes, format_name: str) -> Image.Image:
    """Open a picture of one format with Pillow, within the limits.

    Raises:
        PictureRefused: its readers read too often.
        Exception: one of ``BROKEN``.
    """
    # Pillow's own check of the pixel count only warns above its limit, and raises above twice that.
    Image.MAX_IMAGE_PIXELS = max(MAX_PIXELS.values())
    PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT_BYTES
    # One for each broken tag, of which a picture may have thousands; Python would keep each text for good.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    return Image.open(_BoundedFile(content), formats=[format_name])


def _check(facts: Facts) -> None:
    if facts.width < 1 or facts.height < 1:
        raise PictureRefused(f"is {facts.width} by {facts.height} pixels")
    limit = MAX_PIXELS[facts.format]
    if facts.width * facts.height > limit:
        fact = f"is {facts.width} by {facts.height} pixels, as {facts.format} it may have {limit // 1_000_000} million"
        raise PictureRefused(fact, "make it smaller")


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
