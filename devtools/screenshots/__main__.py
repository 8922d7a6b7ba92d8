"""Take the pictures of ``docs/screenshots/``: every main page in light and dark, some on a phone.

    python -m devtools.screenshots [NAME…] [--folder FOLDER]

The yard is filled the same way every time; times, ids and processes differ. Needs Chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from devtools.room.yard import RoomYard, room_yard
from devtools.screenshots.shots import SHOTS, Shot

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
WIDE, PHONE = (1440, 900), (390, 844)
# Enough for an antialiased page of few colours; a third of the bytes.
COLOURS = 128
PATIENCE_MS = 60_000


def main() -> int:
    """Start a yard, make the situation, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(shot.name for shot in SHOTS)}")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    asked = parser.parse_args()
    program = shutil.which("chromium")
    if program is None:
        parser.error("chromium is not on PATH; run: sudo apt install chromium")
    shots = [shot for shot in SHOTS if not asked.names or shot.name in asked.names]
    asked.folder.mkdir(parents=True, exist_ok=True)
    with room_yard() as yard, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        made = yard.make("letters", 12)
        yard.make("make_default_late")
        names = {"job": made["jobs"][0], "letter": made["letters"][0], "fingerprint": made["fingerprint"]}
        for shot in shots:
            _take(shot, browser, yard, names, asked.folder)
        browser.close()
    return 0


def _take(shot: Shot, browser: Browser, yard: RoomYard, names: dict[str, Any], folder: Path) -> None:
    ways = {"light": ("light", WIDE), "dark": ("dark", WIDE)} | ({"phone": ("light", PHONE)} if shot.phone else {})
    for name, (scheme, (width, height)) in ways.items():
        context = browser.new_context(
            base_url=yard.url,
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(PATIENCE_MS)
        context.add_cookies([{"name": "sessionid", "value": yard.facts["sessions"]["ada.byron"], "url": yard.url}])
        page = context.new_page()
        page.goto(shot.path.format(**names))
        expect(page.get_by_role("heading", name=re.compile(shot.heading)).first).to_be_visible(timeout=PATIENCE_MS)
        page.evaluate("() => document.fonts.ready")
        path = folder / f"{shot.name}-{name}.png"
        path.write_bytes(_optimised(page.screenshot(animations="disabled")))
        sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")
        context.close()


def _optimised(png: bytes) -> bytes:
    """Return a picture with a palette."""
    out = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    sys.exit(main())
