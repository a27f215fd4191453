"""What the site has beside the pages of docs/: those made of other files, and the reference, made of the public names.

A hook of MkDocs. Pages that are named in mkdocs.yml and do not exist are left out.
"""

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
FOLDERS = {"logsnr": "src/logsnr", "logsnr.solvers": "solvers", "logsnr.kernels": "kernels"} | {
    f"logsnr.{name}": name for name in ("analysis", "control", "integrations")
}
AREAS = {  # of the names of logsnr itself; names in none of them are in the last
    "sampling": ("Sampling", "sample solve Solution start randn Stepper Picard Rounds StopSampling NonFiniteError"),
    "models": ("Models and guidance", "Denoiser Guidance wrap check log_likelihood"),
    "schedules": (
        "Schedules and grids",
        "Schedule VPLinear VPCosine SubVP VE EDM FlowMatching Trigonometric Discrete Custom grid grid_names Shift",
    ),
    "solvers": ("Solvers and programs", "solver solver_names Solver Program Call known_error data_width"),
    "tuning": ("Tuning", "tune calibrate Statistics Wiener"),
    "more": ("More", ""),
}
PARTS = {
    "analysis": "logsnr.analysis",
    "control": "logsnr.control",
    "integrations": "logsnr.integrations",
    "parts": "logsnr.solvers",
    "kernels": "logsnr.kernels",
}


def public(package: str) -> dict[str, str]:
    """By public name of a package, the module that it comes from: '.orders', or ':name' for a module itself."""
    tree = ast.parse((ROOT / FOLDERS[package] / "__init__.py").read_text())
    origin, names, lists = {}, [], {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin |= {alias.asname or alias.name: f".{node.module}" for alias in node.names if node.level}
        elif isinstance(node, ast.Assign) and isinstance(node.value, (ast.List, ast.Tuple)):
            lists[node.targets[0].id] = node.value.elts
    for item in lists.get("__all__", []):
        several = lists[item.value.id] if isinstance(item, ast.Starred) else [item]
        names += [one.value for one in several]
    return {name: origin.get(name, f":{name}") for name in names if not name.startswith("__")}


def address(package: str, name: str) -> str:
    """Where the reader of the package finds a public name: past the module, where that has the same name."""
    return f"{package}.{name}.{name}" if public(package)[name] == f".{name}" else f"{package}.{name}"


def summary(package: str, module: str = "") -> str:
    """The first sentence of a module's docstring."""
    path = ROOT / FOLDERS[package] / f"{module[1:].replace('.', '/') or '__init__'}.py"
    text = ast.get_docstring(ast.parse(path.read_text())) if path.exists() else None
    return re.split(r"(?<=\.)\s", (text or "").split("\n\n")[0].replace("\n", " "))[0]


def reference() -> dict[str, str]:
    """The pages of the reference."""
    names, pages, rest = public("logsnr"), {}, set(public("logsnr"))
    listed = ["# Reference", "", "Every public name, with shapes, dtypes, errors and sources.", ""]
    for area, (title, words) in AREAS.items():
        chosen = [name for name in words.split() if name in names] or sorted(rest)
        rest -= set(chosen)
        if chosen:
            pages[area] = "\n\n".join([f"# {title}", *(f"::: logsnr.{name}" for name in chosen)])
            listed.append(_row(title, area, "logsnr", chosen))
    for page, package in PARTS.items():
        if found := public(package):
            pages[page] = _package(package, found)
            listed.append(_row(f"`{package}`", page, package, sorted(found)))
    return pages | {"index": "\n".join(listed)}


def _row(title: str, page: str, package: str, names: list[str]) -> str:
    return f"- **[{title}]({page}.md)**: " + ", ".join(f"[`{name}`][{address(package, name)}]" for name in names)


def _package(package: str, names: dict[str, str]) -> str:
    """All names of a package, by the modules that they come from."""
    parts = [f"# {package}", summary(package)]
    for module in dict.fromkeys(names.values()):
        mine = [name for name, origin in names.items() if origin == module]
        parts += [
            f"## {summary(package, module).rstrip('.') or mine[0]}",
            *(f"::: {address(package, name)}" for name in mine),
        ]
    return "\n\n".join(parts)


def generated() -> dict[str, str]:
    """All pages that are made, by their path."""
    pages = {f"reference/{name}.md": text for name, text in reference().items()}
    for name in ("CHANGELOG", "CONTRIBUTING"):
        pages[f"{name.lower()}.md"] = (ROOT / f"{name}.md").read_text().replace("](docs/", "](")
    cff = (ROOT / "CITATION.cff").read_text()
    pages["citation.md"] = f"# Citation\n\nCite the software as `CITATION.cff` says:\n\n```yaml\n{cff}```\n"
    parts = ["# Examples", "Each is a file of `examples/`, and a test runs it. With pictures: [gallery](gallery.md)."]
    for path in sorted((ROOT / "examples").glob("*.py")):
        parts.append(f"## {path.name}\n\n```python\n{path.read_text()}```")
    return pages | {"examples.md": "\n\n".join(parts)}


def on_config(config: Any) -> Any:
    config.nav = _existing(config.nav, {*generated(), *(str(p.relative_to(ROOT / "docs")) for p in _docs())})
    return config


def _docs() -> list[Path]:
    return [*(ROOT / "docs").rglob("*.md")]


def _existing(nav: Any, pages: set[str]) -> Any:
    """The navigation without pages that do not exist, and without what is then empty."""
    if isinstance(nav, str):
        return nav if nav in pages else None
    if isinstance(nav, dict):
        return {title: kept for title, part in nav.items() if (kept := _existing(part, pages))}
    return [kept for part in nav if (kept := _existing(part, pages))]


def on_files(files: Files, config: Any) -> Files:
    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    for path in (ROOT / "docs" / "_site").glob("*.css"):
        files.append(File.generated(config, path.name, content=path.read_text()))
    return files


def title(name: str) -> str:
    """The heading of a page of docs/, less what follows a colon: readers of the site see no files."""
    path = ROOT / "docs" / f"{name}.md"
    return path.read_text().partition("\n")[0].removeprefix("# ").partition(":")[0] if path.exists() else f"{name}.md"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links that leave docs/ lead to the pages made of those files; those that show a file's name show its title."""
    markdown = re.sub(r"\[([\w-]+)\.md\]\(", lambda link: f"[{title(link[1])}](", markdown)
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples.md#\1py)", markdown)
    markdown = markdown.replace("](../CONTRIBUTING.md", "](contributing.md").replace(
        "](../CHANGELOG.md", "](changelog.md"
    )
    return re.sub(r"^```(\w+) no-run$", r"```\1", markdown, flags=re.MULTILINE)
