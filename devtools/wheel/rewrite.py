"""Rewriting of Python modules for the wheel: imports, attribute paths, dotted strings, docstrings and comments."""

from __future__ import annotations

import ast
from typing import TypeVar, cast

import libcst as cst
import libcst.matchers as m
from libcst.helpers import get_full_name_for_node

from devtools.wheel.names import Names, moved

_Literal = TypeVar("_Literal", cst.SimpleString, cst.FormattedStringText, cst.Comment)


class AmbiguousRoot(Exception):
    """A module imports a package by its full path and uses the package's name for something else as well."""

    def __init__(self, root: str) -> None:
        super().__init__(
            f"`import {root}.…` beside another meaning of the name {root!r}; import the module with `from` or `as`"
        )


def rewrite_module(source: str, names: Names) -> str:
    """Return a module of the repository as it stands in the wheel.

    Raises:
        AmbiguousRoot: an attribute path cannot be told from an attribute of a variable.
    """
    tree = cst.parse_module(source)
    whole_paths = _roots_bound_by_import(source)
    return tree.visit(_Rewriting(names, whole_paths)).code


def _roots_bound_by_import(source: str) -> set[str]:
    """Return the top-level packages that ``import package.module`` binds in a module."""
    bound: set[str] = set()
    otherwise: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                bound.update(
                    alias.name.partition(".")[0] for alias in aliases if alias.asname is None and moved(alias.name)
                )
                otherwise.update(alias.asname for alias in aliases if alias.asname is not None)
            case ast.ImportFrom(names=aliases):
                otherwise.update(alias.asname or alias.name for alias in aliases)
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                otherwise.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                otherwise.add(name)
            case _:
                pass
    if conflict := sorted(bound & otherwise):
        raise AmbiguousRoot(conflict[0])
    return bound


class _Rewriting(cst.CSTTransformer):
    def __init__(self, names: Names, whole_paths: set[str]) -> None:
        super().__init__()
        self._names = names
        self._whole_paths = whole_paths

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def leave_Import(self, original_node: cst.Import, updated_node: cst.Import) -> cst.Import:
        aliases = [alias.with_changes(name=_moved_node(alias.name)) for alias in updated_node.names]
        return updated_node.with_changes(names=aliases)

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def leave_ImportFrom(self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom) -> cst.ImportFrom:
        if updated_node.module is None or updated_node.relative:
            return updated_node
        return updated_node.with_changes(module=_moved_node(updated_node.module))

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        # Only the innermost attribute is replaced, `broker.redis` of `broker.redis.calls`; outer nodes stay unchanged.
        if not m.matches(original_node.value, m.Name()) or cst.ensure_type(original_node.value, cst.Name).value not in (
            self._whole_paths
        ):
            return updated_node
        return _moved_node(updated_node)

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.SimpleString:
        return self._reworded(updated_node)

    def leave_FormattedStringText(
        self, original_node: cst.FormattedStringText, updated_node: cst.FormattedStringText
    ) -> cst.FormattedStringText:
        return self._reworded(updated_node)

    def leave_Comment(self, original_node: cst.Comment, updated_node: cst.Comment) -> cst.Comment:
        return self._reworded(updated_node)

    def _reworded(self, node: _Literal) -> _Literal:
        text = self._names.rewrite_text(node.value)
        return node if text == node.value else node.with_changes(value=text)


def _moved_node(node: cst.BaseExpression) -> cst.Attribute | cst.Name:
    path = cast("cst.Attribute | cst.Name", node)
    new = moved(get_full_name_for_node(path) or "")
    return path if new is None else cast("cst.Attribute | cst.Name", cst.parse_expression(new))
