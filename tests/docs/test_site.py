"""The site: the reference has every public name, the navigation every page, docstrings become lists."""

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from pages import DOCS

from logsnr.integrations import MODULES as OPTIONAL

PACKAGES = ["logsnr", "logsnr.analysis", "logsnr.control", "logsnr.integrations", "logsnr.solvers"]


def loaded(name: str, **modules: ModuleType) -> ModuleType:
    """A module of docs/_site, with ``modules`` in the place of what is not installed here."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", DOCS / "_site" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    kept = {key: sys.modules.get(key) for key in modules}
    sys.modules.update(modules)
    try:
        spec.loader.exec_module(module)
    finally:
        for key, value in kept.items():
            sys.modules.pop(key) if value is None else sys.modules.update({key: value})
    return module


def stand_in(**names: object) -> ModuleType:
    module = ModuleType("stand_in")
    module.__dict__.update(names)
    return module


@pytest.fixture(scope="module")
def site() -> ModuleType:
    files = stand_in(File=SimpleNamespace, Files=list)
    return loaded(
        "site_pages", **{"mkdocs": stand_in(), "mkdocs.structure": stand_in(), "mkdocs.structure.files": files}
    )


def test_every_public_name_is_in_the_reference(site: ModuleType) -> None:
    """All of `__all__`, also names that are loaded late; each once."""
    pages = site.reference()
    for package in PACKAGES:
        module = import_module(package)
        names = [name for name in getattr(module, "__all__", ()) if not name.startswith("__")]
        text = "\n".join(pages.values()).splitlines()
        for name in names:
            assert text.count(f"::: {site.address(package, name)}") == 1, name
            if name not in OPTIONAL:
                assert (getattr(module, name).__doc__ or "").strip(), name
    assert "[`sample`][logsnr.sample]" in pages["index"]


def test_every_page_is_in_the_navigation(site: ModuleType) -> None:
    """And what is in it exists, but for parts of the reference that have no names."""
    nav = (DOCS.parent / "mkdocs.yml").read_text().split("nav:\n")[1].split("validation:")[0]
    named = {word.strip("-:") for word in nav.split() if word.endswith(".md")}
    pages = {path.name for path in DOCS.glob("*.md")} | {*site.generated()}
    assert pages <= named
    assert named - pages <= {"reference/more.md"}


def test_missing_pages_are_left_out(site: ModuleType) -> None:
    nav = [{"Start": ["index.md", "missing.md"]}, {"Empty": ["missing.md"]}, "missing.md"]
    assert site._existing(nav, {"index.md"}) == [{"Start": ["index.md"]}]


def test_links_out_of_docs_lead_to_made_pages(site: ModuleType) -> None:
    text = "[a](../examples/run_program.py), [b](../CONTRIBUTING.md#set-up)\n```python no-run\n"
    assert site.on_page_markdown(text) == ("[a](examples.md#run_programpy), [b](contributing.md#set-up)\n```python\n")
    assert "run_program.py" in site.generated()["examples.md"]
    named = site.on_page_markdown("[tutorial.md](tutorial.md), [grids](grids.md#shift), [none.md](none.md)")
    assert named == "[Tutorial](tutorial.md), [grids](grids.md#shift), [none.md](none.md)"


def test_docstrings_become_lists() -> None:
    """ "name: text" becomes an item for each known name; other paragraphs stay."""
    griffe = stand_in(
        Class=type("Class", (), {}), Extension=object, Function=type("F", (), {}), Module=object, Object=object
    )
    listed = loaded("docstrings", griffe=griffe).listed
    found = listed("x: the state\n   (B, ...). nfe, steps: how many; t: 1", {"x", "nfe", "steps", "t"})
    assert found == "- **`x`**: the state (B, ...).\n- **`nfe, steps`**: how many\n- **`t`**: 1"
    assert listed("note: nothing is known of it", {"x"}) == "note: nothing is known of it"


def test_pictures_are_small() -> None:
    for path in Path(DOCS / "figures").iterdir():
        assert path.stat().st_size < 150_000, path.name
    sizes = [path.stat().st_size for path in (DOCS / "figures" / "gallery").iterdir()]
    assert max(sizes) < 60_000
    assert sum(sizes) < 400_000
