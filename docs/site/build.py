"""Build the site of this tree's version beside those of other versions: see bin/docs."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from sphinx.cmd.build import main

from switchyard import __version__

CONFIGURATION = Path(__file__).parent


def build(folder: Path) -> int:
    """Build ``folder/VERSION``, list the versions in ``folder/versions.json``, and return Sphinx's exit code."""
    site = folder / __version__
    options = ("-q", "--fail-on-warning", "--keep-going", "-j", "auto")
    with TemporaryDirectory() as pages:  # all are read anew: the contents of one page are the list in another
        places = ("-c", CONFIGURATION, "-d", pages, CONFIGURATION.parents[1], site)
        if code := main([*options, *map(str, places)]):
            return code
    versions = sorted(
        (path.parent.name for path in folder.glob("*/llms.txt")),
        key=lambda version: [int(number) for number in version.split(".")],
        reverse=True,
    )
    (folder / "versions.json").write_text(json.dumps(versions))
    first = (CONFIGURATION / "templates/index.html").read_text()
    (folder / "index.html").write_text(first.replace("README", f"{versions[0]}/README"))
    return 0


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])))
