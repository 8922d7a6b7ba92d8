"""Honest pictures are read to their end, everything else is refused quickly and in little memory."""

from __future__ import annotations

import io
import struct
import time
import zipfile

import psutil
import pytest
from PIL import Image

from apps.images.claims import check_content_type, check_name
from apps.images.containers import read_facts, sniff
from apps.images.errors import PictureRefused
from switchyard.middleware.errors import PermanentFailure
from tests.factories.pictures import (
    chunk,
    encode,
    gif_frames,
    gradient,
    png_bomb,
    png_header,
    webp,
    webp_canvas,
)

PNG, JPEG = encode(gradient(), "PNG"), encode(gradient(), "JPEG")
WEBP, GIF = encode(gradient(), "WEBP"), encode(gradient(), "GIF")
HONEST = {"PNG": PNG, "JPEG": JPEG, "WEBP": WEBP, "GIF": GIF}


def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr("run.class", "evil")
    return content.getvalue()


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_of_size(width: int, height: int) -> bytes:
    start = JPEG.index(b"\xff\xc0")
    return JPEG[: start + 5] + struct.pack(">HH", height, width) + JPEG[start + 9 :]


@pytest.mark.parametrize("format_name", HONEST)
def test_an_honest_picture_is_read_to_its_end(format_name: str) -> None:
    facts = read_facts(HONEST[format_name])

    assert (facts.format, facts.width, facts.height, facts.frames) == (format_name, 320, 200, 1)
    assert facts.end == len(HONEST[format_name])


@pytest.mark.parametrize(
    ("content", "format_name", "frames"),
    [
        (encode(gradient(), "JPEG", progressive=True, quality=95), "JPEG", 1),
        (encode(gradient(), "JPEG", restart_marker_blocks=1), "JPEG", 1),
        (encode(gradient(), "JPEG", exif=Image.Exif(), comment=b"hello"), "JPEG", 1),
        (encode(gradient(mode="CMYK"), "JPEG"), "JPEG", 1),
        (encode(gradient(), "WEBP", lossless=True), "WEBP", 1),
        (encode(gradient(mode="RGBA"), "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), "WEBP", 1),
        (encode(gradient(), "WEBP", save_all=True, append_images=[gradient(), gradient(mode="L")]), "WEBP", 2),
        (encode(gradient(), "GIF", save_all=True, append_images=[gradient(mode="L")]), "GIF", 2),
        (encode(gradient(), "PNG", save_all=True, append_images=[gradient(mode="L").convert("RGB")]), "PNG", 2),
        (encode(gradient(mode="P"), "PNG"), "PNG", 1),
        (encode(gradient(mode="L").convert("I;16"), "PNG"), "PNG", 1),
        (PNG + bytes(64), "PNG", 1),
        (JPEG + bytes(64) + JPEG, "JPEG", 1),
        (encode(gradient(), "MPO", save_all=True, append_images=[gradient()]), "JPEG", 1),
    ],
)
def test_what_cameras_and_programs_write_is_taken(content: bytes, format_name: str, frames: int) -> None:
    facts = read_facts(content)

    assert (facts.format, facts.width, facts.height, facts.frames) == (format_name, 320, 200, frames)


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
    "png without end": PNG[:-12],
    "png cut in half": PNG[: len(PNG) // 2],
    "png without header": PNG[:8] + PNG[33:],
    "png of endless chunks": png_header(1, 1) + chunk(b"tEXt") * 300_000,
    "png of many frames": png_header(4, 4) + chunk(b"acTL", struct.pack(">II", 501, 0)) + chunk(b"IEND"),
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
    "webp of many frames": webp(b"VP8X", webp_canvas(4, 4, animated=True), b"ANMF\0\0\0\0" * 501),
    "webp of endless chunks": webp(b"VP8X", webp_canvas(4, 4), b"XXXX\0\0\0\0" * 300_000),
    "webp cut off": WEBP[:-10],
    "webp that is cut to its header": WEBP[:16],
    "webp without header": webp(b"JUNK", b"junk"),
    "sound": b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
    "gif bomb": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + GIF[10:],
    "gif of many frames": gif_frames(501),
    "gif of very many frames": gif_frames(400_000),
    "gif of endless parts": GIF[:-1] + b"!\xfe" + b"\x01a" * 300_000 + b"\0;",
    "gif with a frame outside": gif_frames(1, left=1),
    "gif without a frame": b"GIF89a" + struct.pack("<HHBBB", 4, 4, 0, 0, 0) + b";",
    "gif without end": GIF[:-1],
    "gif and script": b"GIF89a=1;alert(1);/*" + GIF[6:] + b"*/",
    **{f"{name} and zip": content + archive() for name, content in HONEST.items()},
    **{f"{name} and html": content + b"<script>alert(1)</script>" for name, content in HONEST.items()},
    **{f"{name} behind a byte": b"\0" + content for name, content in HONEST.items()},
    "jpeg and pdf": JPEG[:2] + jpeg_segment(0xFE, b"\n%PDF-1.7\n1 0 obj") + JPEG[2:],
    "jpeg and film": JPEG + b"\0\0\0\x18ftypmp42" + bytes(100),
    "jpeg and half a jpeg": JPEG + JPEG[:100],
    "jpeg and very many jpegs": JPEG * 20,
}


@pytest.mark.parametrize("most_s", [1.0, pytest.param(0.2, marks=pytest.mark.long)])
@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_plain_picture_is_refused_quickly_in_little_memory(what: str, most_s: float) -> None:
    content = HOSTILE[what]
    process = psutil.Process()
    before_bytes = process.memory_info().rss
    started = time.process_time()

    with pytest.raises(PictureRefused) as refused:
        read_facts(content)

    assert time.process_time() - started < most_s
    assert process.memory_info().rss - before_bytes < 50 * 1024 * 1024
    assert isinstance(refused.value, PermanentFailure)
    assert str(refused.value).startswith("picture: ") and "; " in str(refused.value)


@pytest.mark.parametrize("format_name", HONEST)
def test_a_picture_cut_off_anywhere_never_crashes(format_name: str) -> None:
    content = HONEST[format_name]

    for length in range(0, len(content), max(1, len(content) // 300)):
        with pytest.raises(PictureRefused):
            read_facts(content[:length])


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
        ("a.png", False),
        ("A.PNG", False),
        ("a", False),
        ("", False),
        ("/img.php", True),
        ("/a/b.png", True),
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


def test_formats_are_told_by_their_first_bytes() -> None:
    assert {sniff(content) for content in HONEST.values()} == set(HONEST)
    assert sniff(b"RIFF") is None


def test_a_jpeg_of_several_scans_and_no_component_is_refused() -> None:
    progressive = encode(gradient(), "JPEG", progressive=True)
    start = progressive.index(b"\xff\xc2")
    without = progressive[: start + 9] + b"\0" + progressive[start + 10 :]

    with pytest.raises(PictureRefused, match="invalid part"):
        read_facts(without)
