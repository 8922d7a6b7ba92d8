"""Pictures: honest ones, and ones that lie, explode or hide something."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image


def encode(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    """Return a picture's bytes in a format."""
    content = io.BytesIO()
    picture.save(content, format_name, **options)
    return content.getvalue()


def gradient(width: int = 320, height: int = 200, mode: str = "RGB") -> Image.Image:
    """Draw something that no format makes flat."""
    ramp = Image.linear_gradient("L").resize((width, height))
    turned = ramp.transpose(Image.Transpose.ROTATE_180)
    return Image.merge("RGB", (ramp, turned, ramp)).convert(mode)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """Return a chunk of a PNG."""
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
    """Return the payload of a ``VP8X`` chunk."""
    flags = 2 if animated else 0
    return bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def gif_frames(count: int, width: int = 4, height: int = 4, *, left: int = 0) -> bytes:
    """Return a GIF of ``count`` small frames that nothing has encoded."""
    frame = b"," + struct.pack("<HHHHB", left, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * count + b";"
