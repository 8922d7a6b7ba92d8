"""A picture to make thumbnails of."""

from __future__ import annotations

import struct
import zlib

WIDTH, HEIGHT = 640, 400
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
EIGHT_BIT_RGB = (8, 2, 0, 0, 0)


def make_picture(shade: int = 96) -> bytes:
    """Return a PNG of 640 by 400 pixels with rails that meet at the horizon.

    Args:
        shade: Amount of blue, 0 … 255, to tell pictures apart.
    """
    rows = b"".join(b"\0" + _row(y, shade) for y in range(HEIGHT))
    header = struct.pack(">II5B", WIDTH, HEIGHT, *EIGHT_BIT_RGB)
    return PNG_SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _row(y: int, shade: int) -> bytes:
    row = bytearray()
    reach = max(1, y - HEIGHT // 4)
    for x in range(WIDTH):
        if y <= HEIGHT // 4:
            row += bytes((250 - y // 2, 180 - y // 2, shade))
        elif abs(abs(x - WIDTH // 2) - reach // 2) <= 1 + reach // 40:
            row += b"\xd8\xdc\xe4"
        else:
            row += bytes((40 + reach // 8, 52 + reach // 8, shade // 2 + 40))
    return bytes(row)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
