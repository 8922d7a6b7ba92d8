"""Bill of materials of an image: ``python ops/sbom.py`` prints CycloneDX 1.6.

It names Python packages with their licences, and Debian's.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from typing import Any


def licences(found: Distribution) -> list[dict[str, Any]]:
    """Return the licences that a distribution names: its expression, or the text of its field or classifiers."""
    meta = found.metadata
    if expressions := meta.get_all("License-Expression"):
        return [{"expression": expressions[0]}]
    named = [name.rpartition(" :: ")[2] for name in meta.get_all("Classifier") or [] if name.startswith("License")]
    text = [line for line in (meta.get_all("License") or [""])[0].splitlines() if line.strip()]
    return [{"license": {"name": name}} for name in named or text[:1] or ["unknown"]]


def python_packages() -> Iterator[dict[str, Any]]:
    """Yield the distributions that this interpreter finds."""
    for found in distributions():
        name = found.metadata["Name"]
        purl = f"pkg:pypi/{name.lower()}@{found.version}"
        component = {"type": "library", "name": name, "version": found.version, "purl": purl}
        yield component | {"bom-ref": purl, "licenses": licences(found)}


def debian_packages() -> Iterator[dict[str, Any]]:
    """Yield the installed packages of Debian; none elsewhere. Their licences are in ``/usr/share/doc``."""
    try:
        query = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\n"]
        text = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        return
    for line in text.splitlines():
        name, version, architecture = line.split()
        purl = f"pkg:deb/debian/{name}@{version}?arch={architecture}"
        yield {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def main() -> int:
    """Print the bill, sorted, so that the same image has the same one."""
    components = sorted((*python_packages(), *debian_packages()), key=lambda component: component["bom-ref"])
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}
    json.dump(bill, sys.stdout, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
