"""The scripts that check a release run tests that are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SCRIPTS = TESTS.parent / ".ci"


@pytest.mark.parametrize("name", ["dist", "versions"])
def test_the_tests_that_a_script_names_exist(name: str) -> None:
    named = re.findall(r"\b[a-z_/]+/test_\w+\.py", (SCRIPTS / name).read_text())
    assert len(named) > 3
    assert [path for path in named if not (TESTS / path).is_file()] == []
