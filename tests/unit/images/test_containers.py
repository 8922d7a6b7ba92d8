"""Honest pictures are read, everything else is refused quickly and in little memory."""

from __future__ import annotations

import struct
import time

import psutil
import pytest
from PIL import Image

from apps.images.containers import read_facts
from apps.images.errors import PictureRefused
from apps.images.making import check_content_type, check_name
from apps.images.rendering import render
from switchyard.middleware.errors import PermanentFailure
from tests.factories.pictures import chunk, encode, gradient, png_bomb, png_header, webp, webp_canvas

PNG, JPEG = encode(gradient(), "PNG"), encode(gradient(), "JPEG")
WEBP, GIF = encode(gradient(), "WEBP"), encode(gradient(), "GIF")
GIF_HEAD = 13 + 3 * 2 ** ((GIF[10] & 7) + 1)
HONEST = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP, "GIF": GIF}


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_of_size(width: int, height: int) -> bytes:
    start = JPEG.index(b"\xff\xc0")
    return JPEG[: start + 5] + struct.pack(">HH", height, width) + JPEG[start + 9 :]


@pytest.mark.parametrize(
    ("content", "format_name"),
    [
        *((content, name) for name, content in HONEST.items()),
        (encode(gradient(), "JPEG", progressive=True, quality=95), "JPEG"),
        (encode(gradient(), "JPEG", restart_marker_blocks=1), "JPEG"),
        (encode(gradient(), "JPEG", exif=Image.Exif(), comment=b"hello"), "JPEG"),
        (encode(gradient(mode="CMYK"), "JPEG"), "JPEG"),
        (encode(gradient(), "WEBP", lossless=True), "WEBP"),
        (encode(gradient(mode="RGBA"), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), "WEBP"),
        (encode(gradient(), "WEBP", save_all=True, append_images=[gradient(), gradient(mode="L")]), "WEBP"),
        (encode(gradient(), "GIF", save_all=True, append_images=[gradient(mode="L")]), "GIF"),
        (encode(gradient(), "PNG", save_all=True, append_images=[gradient(mode="L").convert("RGB")]), "PNG"),
        (encode(gradient(mode="P"), "PNG"), "PNG"),
        (encode(gradient(mode="L").convert("I;16"), "PNG"), "PNG"),
        (PNG + bytes(64), "PNG"),
        (JPEG + bytes(64) + JPEG, "JPEG"),
        (encode(gradient(), "MPO", save_all=True, append_images=[gradient()]), "JPEG"),
    ],
)
def test_what_cameras_and_programs_write_is_taken(content: bytes, format_name: str) -> None:
    facts = read_facts(content)

    assert (facts.format, facts.width, facts.height) == (format_name, 320, 200)


HOSTILE = {
    "nothing": b"",
    "text": b"hello",
    "html": b"<html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "bmp": encode(gradient(), "BMP"),
    "tiff": encode(gradient(), "TIFF"),
    "avif": b"\0\0\0\x20ftypavif" + bytes(100),
    "fits": b"SIMPLE  =                    T" + b" " * 5000,
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    "png bomb": png_bomb(),
    "wide png": png_header(2**31 - 1, 1) + chunk(b"IEND"),
    "png of no pixels": png_header(0, 10) + chunk(b"IEND"),
    "png of negative length": png_header(1, 1) + b"\xff\xff\xff\xffIDAT",
    "png cut in half": PNG[: len(PNG) // 2],
    "png without header": PNG[:8] + PNG[33:],
    "png of endless chunks": png_header(1, 1) + chunk(b"tEXt") * 300_000,
    "jpeg bomb": jpeg_of_size(65_000, 65_000),
    "jpeg of no pixels": jpeg_of_size(0, 100),
    "jpeg of two sizes": JPEG[:2] + jpeg_segment(0xC0, b"\x08\0\x01\0\x01\x01\x01\x11\0") + JPEG[2:],
    "jpeg cut in its picture": JPEG[:-20],
    "jpeg cut in its header": JPEG[:30],
    "jpeg of markers alone": b"\xff\xd8" + b"\xff" * 100_000,
    "jpeg of many scans": JPEG[:-2] + (jpeg_segment(0xDA, b"\x01\x01\0\0\x3f\0") + b"\0") * 200 + b"\xff\xd9",
    "jpeg of endless segments": b"\xff\xd8" + jpeg_segment(0xFE, b"") * 300_000,
    "webp bomb": webp(b"VP8X", webp_canvas(16_384, 16_384), b"VP8L\x05\0\0\0\x2f\0\0\0\0\0"),
    "lossless webp bomb": webp(b"VP8L", b"\x2f" + struct.pack("<I", 0x0FFF_FFFF) + b"\0"),
    "webp of endless chunks": webp(b"VP8X", webp_canvas(4, 4), b"XXXX\0\0\0\0" * 300_000),
    "webp cut off": WEBP[:-10],
    "webp that is cut to its header": WEBP[:16],
    "webp without header": webp(b"JUNK", b"junk"),
    "sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
    "gif bomb": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + GIF[10:],
    "gif of endless parts": GIF[:GIF_HEAD] + b"!\xfe" + b"\x01a" * 300_000 + b"\0" + GIF[GIF_HEAD:],
    "gif of an endless comment": GIF[:GIF_HEAD] + b"!\xfe" + (b"\xff" + b"a" * 255) * 80_000 + b"\0" + GIF[GIF_HEAD:],
    "gif without a frame": b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0) + b";",
    **{f"{name} behind a byte": b"\0" + content for name, content in HONEST.items()},
}


@pytest.mark.parametrize("most_s", [1.0, pytest.param(0.2, marks=pytest.mark.long)])
@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_plain_picture_is_refused_quickly_in_little_memory(what: str, most_s: float) -> None:
    content = HOSTILE[what]
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    started = time.process_time()

    with pytest.raises(PictureRefused) as refused:
        render(content, read_facts(content), 40, 40)

    assert time.process_time() - started < most_s
    assert process.memory_info().rss - before_bytes < 50 * 1024 * 1024
    assert isinstance(refused.value, PermanentFailure)
    assert str(refused.value).startswith("picture: ") and "; " in str(refused.value)


@pytest.mark.parametrize("format_name", HONEST)
def test_a_picture_cut_off_anywhere_never_crashes(format_name: str) -> None:
    content = HONEST[format_name]
    refused = 0

    for length in range(0, len(content) - 20, max(1, len(content) // 300)):
        try:
            render(content[:length], read_facts(content[:length]), 40, 40)
        except PictureRefused:
            refused += 1

    assert refused > 290


@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "IMAGE/PNG", "image/png; charset=binary"])
def test_a_content_type_that_is_true_or_says_nothing_is_taken(content_type: str) -> None:
    check_content_type(content_type, "PNG")


@pytest.mark.parametrize(
    "content_type", ["image/jpeg", "text/html", "image/svg+xml", "application/zip", "png", "x" * 99]
)
def test_a_content_type_that_lies_is_refused(content_type: str) -> None:
    with pytest.raises(PictureRefused, match="came as"):
        check_content_type(content_type, "PNG")


@pytest.mark.parametrize(
    ("name", "is_url"),
    [
        *(("a.png", False), ("A.PNG", False), ("a", False), ("", False), ("/img.php", True), ("/a/b.png", True)),
        ("/", True),
    ],
)
def test_a_name_that_is_true_or_says_nothing_is_taken(name: str, is_url: bool) -> None:
    check_name(name, "PNG", is_url=is_url)


@pytest.mark.parametrize(
    ("name", "is_url"),
    [("a.jpg", False), ("a.png.html", False), ("a.svg", False), ("a.exe", False), ("/a.gif", True), ("/a.JPEG", True)],
)
def test_a_name_that_lies_is_refused(name: str, is_url: bool) -> None:
    with pytest.raises(PictureRefused, match="is named"):
        check_name(name, "PNG", is_url=is_url)


def test_a_jpeg_of_several_scans_and_no_component_is_refused() -> None:
    progressive = encode(gradient(), "JPEG", progressive=True)
    start = progressive.index(b"\xff\xc2")
    without = progressive[: start + 9] + b"\0" + progressive[start + 10 :]

    with pytest.raises(PictureRefused, match="cannot be read"):
        read_facts(without)
