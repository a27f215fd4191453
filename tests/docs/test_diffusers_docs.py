"""docs/diffusers.md: what it says is what comes out. The example runs."""

import runpy
from pathlib import Path

import pytest
from pages import blocks, printed

pytest.importorskip("diffusers")


def test_python_blocks_print_what_the_page_says() -> None:
    shown = list(printed(blocks("diffusers.md")))
    assert len(shown) == 2
    for output, said in shown:
        assert output == said


@pytest.mark.usefixtures("without_root")
def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[2] / "examples" / "diffusers_pipeline.py"
    assert len(example.read_text().splitlines()) < 40
    try:
        runpy.run_path(str(example), run_name="__main__")
    except RuntimeError as error:  # where a library that diffusers loads is broken
        pytest.skip(f"the models of diffusers cannot be imported here: {error}")
    assert capsys.readouterr().out.endswith("(2, 3, 8, 8)\n")
