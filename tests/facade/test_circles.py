"""Modules import one another in one direction, at the top of the file or inside of a function."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.util import find_spec, resolve_name
from pathlib import Path
from pkgutil import walk_packages

import pytest

PARTS = ("analysis", "bench", "control", "integrations", "kernels", "solvers")


def sources() -> dict[str, Path]:
    """The file of every module of the package, by its name."""
    names = list[str]()
    for part in ("", *PARTS):  # which may lie elsewhere than the package
        package = import_module(f"logsnr.{part}".rstrip("."))
        names += [package.__name__, *(found.name for found in walk_packages(package.__path__, f"{package.__name__}."))]
    specs = {name: find_spec(name) for name in names}
    return {name: Path(spec.origin) for name, spec in specs.items() if spec and spec.origin}


def statements(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    """All relative imports, in functions too, but for those of annotations alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node
        yield from statements(node)


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module takes names from."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set[str]()
    for node in statements(ast.parse(path.read_text())):
        base = resolve_name("." * node.level + (node.module or ""), package)
        found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names}
    return found - {name}


def order(known: dict[str, Path]) -> list[str]:
    """The modules, each after those that it imports."""
    return [*TopologicalSorter({name: imported(name, path, known) for name, path in known.items()}).static_order()]


def test_no_import_circle() -> None:
    """There is an order in which every module comes after those that it imports."""
    known = sources()
    assert len(known) > 250
    assert set(order(known)) == set(known)


def test_a_circle_is_seen(tmp_path: Path) -> None:
    """Two modules that import each other, one of them inside of a function, are refused."""
    known = {f"p.{name}": tmp_path / f"{name}.py" for name in "ab"}
    known["p.a"].write_text("from .b import x\n")
    known["p.b"].write_text("def f():\n    from .a import y\n")
    with pytest.raises(CycleError):
        order(known)
