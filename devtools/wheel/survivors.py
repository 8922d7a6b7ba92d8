"""Search for repository names that the rewriting missed: a wheel that contains one would fail when imported."""

from __future__ import annotations

import ast
import builtins
import re
import symtable

from devtools.wheel.names import LEFT_BEHIND, MOVED

ROOTS = frozenset({*(old.partition(".")[0] for old in MOVED), *LEFT_BEHIND})
# Dotted or slashed, in any text. A variable's attribute in a sentence ("broker.actors") is no reference.
_IN_TEXT = re.compile(
    r"""(?<![\w./\-])(?:
        apps[./](?:platform|product)
      | project(?:/|\.(?=[a-z_]+\b))(?=\w)
      | (?:broker|middleware)/(?=[\w])
      | (?<=`)(?:broker|middleware)\.(?=[a-z_]+\.[A-Z])
      | (?<=\ \ from\ )(?:broker|middleware)(?=[\w.]*\ import\ )
      | (?<=\nfrom\ )(?:broker|middleware)(?=[\w.]*\ import\ )
      | (?:demo|devtools|benchmarks)[./](?=\w)
    )[\w./]*""",
    re.VERBOSE,
)


def in_text(text: str) -> list[str]:
    """Return the references in prose, a template or a script to what only the repository has."""
    return [f"line {text.count(chr(10), 0, found.start()) + 1}: {found[0]}" for found in _IN_TEXT.finditer(text)]


def in_module(source: str) -> list[str]:
    """Return the references of a rewritten module to what only the repository has: imports, names, text."""
    return [*_imports(source), *_names(source), *in_text(source)]


def _imports(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                found += [f"line {node.lineno}: import {a.name}" for a in aliases if a.name.partition(".")[0] in ROOTS]
            case ast.ImportFrom(module=str(module), level=0) if module.partition(".")[0] in ROOTS:
                found.append(f"line {node.lineno}: from {module} import …")
            case _:
                pass
    return found


def _names(source: str) -> list[str]:
    """Return the top-level packages that code reads as a global, although nothing in the module binds them."""
    top = symtable.symtable(source, "module", "exec")
    bound = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    unbound = ROOTS - bound - set(dir(builtins))
    found, tables = set(), [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        found |= {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.get_name() in unbound and symbol.is_global() and symbol.is_referenced()
        }
        if table is top:
            found |= {s.get_name() for s in top.get_symbols() if s.get_name() in unbound and s.is_referenced()}
    return [f"the name {name}, which nothing in the module binds" for name in sorted(found)]
