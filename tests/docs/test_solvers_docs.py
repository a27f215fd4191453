"""docs/solvers.md and the head of docs/orders.md: what they say is what comes out."""

import re

from pages import DOCS, blocks, printed

import logsnr
from logsnr.bench.orders import ALL

PAGE = (DOCS / "solvers.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"# {title}\n")[1].split("\n## ")[0]


def named(text: str) -> set[str]:
    """Every word between backticks."""
    return {word for quoted in re.findall(r"`([^`\n]+)`", text) for word in quoted.split()}


def test_python_blocks_print_what_the_page_says() -> None:
    """Every python block runs, in order, and prints the text block after it."""
    shown = list(printed(blocks("solvers.md")))
    assert len(shown) >= 2
    for output, said in shown:
        assert output == said


def test_every_solver_is_listed() -> None:
    """Those with and those without noise are each in their section."""
    for title, noisy in (("Solvers without noise", False), ("Solvers with noise", True)):
        names = {name for name in logsnr.solver_names() if logsnr.solver(name).stochastic is noisy}
        assert names <= named(section(title))


def test_every_option_is_listed() -> None:
    """The options of each solver with noise are in the row that names it, those of the others in their section."""
    rows = [line for line in section("Solvers with noise").splitlines() if line.startswith("|")]
    for method in map(logsnr.solver, logsnr.solver_names()):
        for option in method.options:
            if not method.stochastic:
                assert re.search(rf"`{option}\b", section("Solvers without noise")), method.name
                continue
            assert any(method.name in named(row) and re.search(rf"`[^`]*{option}\b", row) for row in rows), method.name


def test_the_head_of_the_orders_is_the_generated_one() -> None:
    assert (DOCS / "orders.md").read_text().startswith(ALL + "\n\n| solver ")
