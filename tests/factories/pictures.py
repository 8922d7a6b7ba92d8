"""Pictures: honest ones, and ones that lie, explode or hide something."""

import io
import math
import struct
import zlib
from typing import Any

from PIL import Image


def encode(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, format_name, **options)
    return content.getvalue()


def gradient(width: int = 320, height: int = 200, mode: str = "RGB") -> Image.Image:
    """Draw something that no format makes flat."""
    ramp = Image.linear_gradient("L").resize((width, height))
    turned = ramp.transpose(Image.Transpose.ROTATE_180)
    return Image.merge("RGB", (ramp, turned, ramp)).convert(mode)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG's beginning: signature and header, 8 bits RGB."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def png_bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """Return a PNG of 7.5 GB in a few hundred KB: rows of zeros."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1_000_000)) for _ in range(300)) + packer.flush()
    return png_header(width, height) + chunk(b"IDAT", rows) + chunk(b"IEND")


def webp(kind: bytes, payload: bytes, *more: bytes) -> bytes:
    """Return a WebP container with a first chunk and more of them."""
    parts = kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2) + b"".join(more)
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts


def webp_canvas(width: int, height: int, *, animated: bool = False) -> bytes:
    flags = 2 if animated else 0
    return bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def flat_png(width: int, height: int, *, bits: int = 8, interlaced: bool = False) -> bytes:
    """Return a PNG of black pixels with alpha 0, encoded by row, so that it costs little to make."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    packer, rows = zlib.compressobj(1), []
    for left, top, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        row = bytes(1 + -(-(width - left) // across) * 4 * bits // 8)
        rows += [packer.compress(row) for _ in range(-(-(height - top) // down))]
    header = struct.pack(">IIBBBBB", width, height, bits, 6, 0, 0, int(interlaced))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(rows) + packer.flush())
    return content + chunk(b"IEND")


def flat_jpeg(width: int, height: int, sampling: tuple[tuple[int, int], ...], *, progressive: bool = False) -> bytes:
    """Return a grey JPEG with a scan for each component, encoded by hand, so that it costs little to make.

    Args:
        sampling: Horizontal and vertical factor of each component.
        progressive: Otherwise a sequential one, which has its components in scans of their own as well.
    """

    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    across, down = max(factors[0] for factors in sampling), max(factors[1] for factors in sampling)
    only_code = bytes([1, *[0] * 15]) + b"\0"  # one code of one bit, 0: no difference, and end of block
    frame = struct.pack(">BHHB", 8, height, width, len(sampling))
    frame += b"".join(bytes([number, high << 4 | low, 0]) for number, (high, low) in enumerate(sampling, start=1))
    content = b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2 if progressive else 0xC0, frame)
    content += segment(0xC4, b"\x00" + only_code) + segment(0xC4, b"\x10" + only_code)
    for number, (horizontal, vertical) in enumerate(sampling, start=1):
        blocks = math.ceil(math.ceil(width * horizontal / across) / 8)
        blocks *= math.ceil(math.ceil(height * vertical / down) / 8)
        bits = blocks if progressive else 2 * blocks
        content += segment(0xDA, bytes([1, number, 0, 0, 0 if progressive else 63, 0])) + bytes(-(-bits // 8))
    return content + b"\xff\xd9"
