"""The size of each package and of the surface, beside the ceilings in ``budget.toml``.

``python -m tests.budget`` prints both and lowers the ceilings to what is there; it raises none.
"""

import ast
import io
import re
import subprocess
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from switchyard.addon import addons

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "budget.toml"
LIBRARY = ("middleware", "switchyard")
FINDING = re.compile(r"\b[A-Z_]+\.(?:(?:ok|skipped|warning|error)\(|finding\(\s*[^,]+,)\s*\"([a-z_]+)\"")
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
Figures = dict[str, int]


def ceilings() -> dict[str, Figures]:
    """Return the tables of ``budget.toml``: ``code``, ``lines``, ``words`` and ``surface``."""
    return tomllib.loads(FILE.read_text())


def figures() -> dict[str, Figures]:
    """Return what is there, in the same tables. A file belongs to the longest path of ``code`` that it lies below."""
    packages = sorted(ceilings()["code"], key=len, reverse=True)
    code, lines = Counter(dict.fromkeys(packages, 0)), Counter(dict.fromkeys(packages, 0))
    for path, text in _sources():
        package = next((name for name in packages if path == name or path.startswith(f"{name}/")), path)
        code[package] += code_lines(text)
        lines[package] += len(text.splitlines())
    return {"code": dict(code), "lines": dict(lines), "words": {"docs": _words()}, "surface": _surface()}


def code_lines(text: str) -> int:
    """Return the lines that hold code: no comment, no docstring, no blank."""
    tokens = (token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in NO_CODE)
    counted = {number for token in tokens for number in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            counted -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(counted)


def _sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Yield each Python file that git knows; a link to a folder is none, so that none counts twice."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    for path in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / path).is_file() and "/migrations/" not in path and (not folders or path.startswith(folders)):
            yield path, (ROOT / path).read_text(encoding="utf-8")


def _words() -> int:
    """Return the words of all pages below ``docs``: what stands between spaces and has a letter or a digit."""
    pages = (path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    return sum(any(map(str.isalnum, word)) for page in pages for word in page.split())


def _surface() -> Figures:
    library = dict(_sources(*(f"{folder}/" for folder in LIBRARY)))
    # A rare state of an add-on costs no file outside of its folder, so what it says is not counted here.
    core = [text for path, text in library.items() if not path.startswith("switchyard/addons/")]
    conf = next(text for path, text in library.items() if path.endswith("/conf.py"))
    pages = ("reference/system-checks.md", "dependencies.md", "reference/glossary.md")
    checks, private, glossary = ((ROOT / "docs" / page).read_text(encoding="utf-8") for page in pages)
    of_addons = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/addons").glob("*.md")))
    checks, private = checks + of_addons, private.partition("## Private names")[2] + of_addons
    terms = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", glossary.split("\n## Terms\n")[1].split("\n## ")[0], re.MULTILINE)
    return {
        "settings": len(re.findall(r'^    "[A-Z_]+": ', conf.partition("\nKEYS")[2].partition("\n}")[0], re.MULTILINE))
        + sum(len(addon.settings) for addon in addons()),
        "check ids": len(set(re.findall(r"^\| `(switchyard\.[EW]\d+)`", checks, re.MULTILINE))),
        "finding codes": len({code for text in core for code in FINDING.findall(text)}),
        "commands": sum(text.count("\n    help = ") for path, text in library.items() if "/commands/" in path),
        "exception classes": len([name for name in _exceptions(core) if name[0] != "_"]),
        "private names": len(re.findall(r"^\| [\w-]+ \| `", private, re.MULTILINE)),
        "glossary terms": len([term for cell in terms[2:] for term in cell.split(",")]),
    }


def _exceptions(texts: Iterable[str]) -> set[str]:
    """Return the names of classes that can be raised: by their bases, or those of a base in the library."""
    nodes = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    bases = {node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases} for node in nodes}
    found: set[str] = set()
    while more := {
        name
        for name, of in bases.items()
        if name not in found and (of & found or any(base.endswith(("Error", "Exception")) for base in of))
    }:
        found |= more
    return found


def lower() -> None:
    """Print each figure beside its ceiling, and write the lower; lines and words are rounded up to fifty."""
    found = figures()
    text = FILE.read_text()
    for table, limits in ceilings().items():
        for name, ceiling in limits.items():
            here = found[table].get(name, 0)
            rounded = here if table == "surface" else -(-here // 50) * 50
            print(f"{table:<8} {name:<32} {here:>7} of {ceiling}")
            head, mark, rest = text.partition(f"[{table}]\n")
            rest = re.sub(
                rf'^("{re.escape(name)}" = )\d+$', rf"\g<1>{min(rounded, ceiling)}", rest, count=1, flags=re.MULTILINE
            )
            text = head + mark + rest
    FILE.write_text(text)


if __name__ == "__main__":
    lower()
