"""docs/errata.md against the tests that it names."""

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parents[1] / "docs" / "errata.md").read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    """The cells of the table in a section, without its two head rows."""
    lines = PAGE.split(f"## {section}\n")[1].split("\n## ")[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


SHOWN = rows("Shown by a test")


@cache
def functions(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", SHOWN, ids=lambda row: row[0])
def test_every_erratum_names_a_test(row: list[str]) -> None:
    """A row has an id, a place, a printed and a right formula, and the name of a test that exists."""
    _, where, printed, right, test = row
    assert where
    assert printed != right
    file, name = test.strip("`").split("::")
    assert file.startswith("test_")
    assert name in functions(file)


def test_tables_are_complete() -> None:
    """Ids are unique, at least thirty errata are shown, and every typographical row has three cells."""
    ids = [row[0] for row in SHOWN]
    assert len(set(ids)) == len(ids) >= 30
    assert all(len(row) == 3 and all(row) for row in rows("Typographical, or a matter of words"))
