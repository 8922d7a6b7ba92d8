"""How Sphinx makes a site of the pages: see bin/docs.

The site begins with the repository's README. Its contents are the lists in docs/README.md and docs/decisions/README.md.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

from switchyard import __version__

project = "Switchyard"
release = version = __version__
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**.md"]

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_llms_txt"]
myst_heading_anchors = 4  # named as a forge names them
html_theme = "furo"
html_title = f"Switchyard {__version__}"
html_use_index = html_show_copyright = html_show_sphinx = False
templates_path = ["templates"]
html_additional_pages = {"index": "index.html"}
html_sidebars = {
    "**": [
        *("sidebar/scroll-start.html", "sidebar/brand.html", "versions.html", "sidebar/search.html"),
        *("sidebar/navigation.html", "sidebar/scroll-end.html"),
    ]
}
llms_txt_summary = "Background work for Django on Dramatiq: pools by latency, dead letters, an operations room."
llms_txt_uri_template = "_sources/{docname}{suffix}{sourcelink_suffix}"  # beside it, wherever the site stands

# A section of the contents: its heading, and a list in which each line begins with a link.
SECTION = re.compile(r"^##? (.+)\n(?:\n|[^-#\n].*\n)*((?:- .+\n)+)", re.MULTILINE)
PAGE = re.compile(r"\]\(([^:)#]+)\.md\)")


def add_contents(app: Sphinx, document: str, source: list[str]) -> None:
    """Add the lists to the contents of the site: the documentation's below the first page, and the decisions'."""
    if document == root_doc:
        listed = SECTION.findall((Path(app.srcdir) / "docs/README.md").read_text())
        sections = [(heading, [f"/docs/{page}" for page in PAGE.findall(links)]) for heading, links in listed]
        sections.append(("Project", ["docs/README", "CONTRIBUTING", "CHANGELOG"]))
    elif document == "docs/decisions/README":
        sections = [(heading, PAGE.findall(links)) for heading, links in SECTION.findall(source[0])]
    else:
        return
    for heading, pages in sections:
        source[0] += "\n".join(("\n```{toctree}", ":hidden:", f":caption: {heading}", "", *pages, "```", ""))


def setup(app: Sphinx) -> None:
    """Register the hook."""
    app.connect("source-read", add_contents)
