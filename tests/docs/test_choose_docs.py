"""docs/choose.md: what it says is what comes out."""

from pathlib import Path

import pytest
from pages import blocks, printed
from typer.testing import CliRunner

from logsnr.bench.report import explorer
from logsnr.cli import app

OWN = """
import logsnr
from logsnr.analysis.gaussian import Gaussian
den = Gaussian([[[0.0, 0.5], [0.2, 0.1]]] * 3, [[[1.0, 0.3], [0.5, 0.2]]] * 3).denoiser(logsnr.VPLinear())
"""


def same(output: str, said: str) -> bool:
    """Equal words, and numbers to 5 %, but for those of round-off: wrapped lines may break elsewhere."""
    words, wanted = output.split(), said.split()
    return len(words) == len(wanted) and all(map(close, words, wanted))


def close(word: str, wanted: str) -> bool:
    try:
        a, b = (float(w.strip(";:.,()").rstrip("%").replace(",", "")) for w in (word, wanted))
    except ValueError:
        return word == wanted
    return abs(a - b) <= (0.05 if abs(b) > 1e-4 else 1.0) * abs(b)


def test_python_blocks_print_what_the_page_says() -> None:
    """The python blocks run in order, and the text after each is its output."""
    shown = list(printed(blocks("choose.md")))
    assert len(shown) == 3
    for output, said in shown:
        assert same(output, said), output


def test_the_command_writes_the_report_of_any_denoiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page has it, with a smaller shape, fewer runs, and no curves to explore."""
    monkeypatch.setattr(explorer, "available", lambda: False)
    (command,) = (text for kind, text in blocks("choose.md") if kind == "console")
    (tmp_path / "net.py").write_text(OWN)
    words = command.removeprefix("$ logsnr ").replace("3 32 32", "3 2 2").replace("net.py", f"{tmp_path / 'net.py'}")
    fewer = "--nfe 4 --nfe 6 --solvers ddim --solvers dpmpp-2m --samples 4"
    out = tmp_path / "report"
    shown = CliRunner().invoke(app, [*words.split(), *fewer.split(), "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    page = (out / "index.html").read_text()
    assert "At 4 evaluations use" in page
    assert "samples of 3 x 2 x 2" in page
    assert (out / "results.csv").read_text().count("net-den-") == 2 * 3 * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shape", "3", "32", "32"], "goes with --denoiser"),
        (["--denoiser", "nowhere.py:den", "--shape", "2"], "must be a Python file and a name in it"),
        (["--denoiser", "nowhere.py:den", "--problem", "digits"], "either --problem or --denoiser"),
    ],
)
def test_bad_options_of_the_command(options: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["bench", *options])
    assert isinstance(found.exception, ValueError)
    assert said in str(found.exception)
