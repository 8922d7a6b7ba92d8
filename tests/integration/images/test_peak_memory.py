"""The costliest pictures that are accepted, of each format, take no more memory than is stated."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from apps.images.containers import MAX_PICTURE_BYTES, MAX_PIXELS
from tests.factories.pictures import encode, flat_jpeg, flat_png

ROOT = Path(__file__).resolve().parents[3]
LARGEST = 4096


def largest_flat_jpeg(ratio: float, sampling: tuple[tuple[int, int], ...], *, progressive: bool) -> bytes:
    height = int((MAX_PIXELS["JPEG"] / ratio) ** 0.5)
    return flat_jpeg(int(height * ratio), height, sampling, progressive=progressive)


def noise(mode: str, width: int, height: int) -> Image.Image:
    """Return a picture that no encoder makes small."""
    small = random.Random(5).randbytes(width // 4 * (height // 4) * len(mode))
    return Image.frombytes(mode, (width // 4, height // 4), small).resize((width, height), Image.Resampling.NEAREST)


def still(mode: str, format_name: str, width: int, height: int, **options: object) -> bytes:
    """Return an even picture; one with alpha shows through."""
    return encode(Image.new(mode, (width, height)), format_name, **options)


COLOUR, CMYK = ((1, 1),) * 3, ((1, 1),) * 4
WORST: dict[str, tuple[Callable[[], bytes], int]] = {
    "jpeg, progressive cmyk": (lambda: largest_flat_jpeg(1, CMYK, progressive=True), LARGEST),
    "jpeg, progressive cmyk, small box": (lambda: largest_flat_jpeg(1, CMYK, progressive=True), 100),
    "jpeg, progressive cmyk, wide": (lambda: largest_flat_jpeg(84, CMYK, progressive=True), 1_000),
    "jpeg, scan by scan": (lambda: largest_flat_jpeg(1, COLOUR, progressive=False), 1_000),
    "jpeg, one scan": (lambda: encode(Image.new("RGB", (4_890, 4_890)), "JPEG"), LARGEST),
    "jpeg, noise": (lambda: encode(noise("RGB", 4_096, 4_096), "JPEG", quality=40, progressive=True), LARGEST),
    "png, interlaced, 16 bits with alpha": (lambda: flat_png(5_000, 5_000, bits=16, interlaced=True), LARGEST),
    "png, palette with alpha": (lambda: still("P", "PNG", 5_000, 5_000, transparency=0), LARGEST),
    "png, 16 bits grey": (lambda: still("I;16", "PNG", 5_000, 5_000), LARGEST),
    "png, frames": (
        lambda: encode(
            Image.new("RGBA", (5_000, 5_000)),
            "PNG", save_all=True, append_images=[Image.new("RGBA", (5_000, 5_000), (9, 9, 9, 9))],
        ),
        LARGEST,
    ),
    "gif with alpha": (lambda: still("P", "GIF", 5_000, 5_000, transparency=0), LARGEST),
    "webp, lossless with alpha": (
        lambda: encode(noise("RGBA", 4_000, 4_000), "WEBP", lossless=True, method=0, quality=0), 1_000
    ),
    "webp, lossy": (lambda: still("RGB", "WEBP", 4_000, 4_000, method=0), LARGEST),
    "webp, frames": (
        lambda: encode(
            Image.new("RGBA", (4_000, 4_000)),
            "WEBP", save_all=True, append_images=[Image.new("RGBA", (4_000, 4_000), (9, 9, 9, 9))],
        ),
        LARGEST,
    ),
}  # fmt: skip
# Of each format. The others with --long.
COSTLIEST = ("jpeg, progressive cmyk", "png, interlaced, 16 bits with alpha", "webp, lossless with alpha")


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[] if what in COSTLIEST else [pytest.mark.long]) for what in WORST]
)
def test_the_costliest_picture_that_is_accepted_stays_within_the_stated_memory(what: str, tmp_path: Path) -> None:
    make, box = WORST[what]
    picture = tmp_path / "picture"
    picture.write_bytes(make())

    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.images.peak_memory", str(picture), str(box), str(box)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    print(f"{what}: {int(done.stdout) / 1e6:.0f} MB")
    assert 50_000_000 < int(done.stdout) <= MAX_PICTURE_BYTES
