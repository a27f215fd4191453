"""The project's docstrings as Markdown: "name: what it is" becomes a list, and public names become links.

An extension of Griffe, which reads the package for mkdocstrings.
"""

import re
from typing import Any

from griffe import Class, Extension, Function, Module, Object

PACKAGES = ("kernels", "solvers", "integrations", "control", "analysis")  # names of later ones go before


class Docstrings(Extension):
    def on_package(self, *, pkg: Any, **_: Any) -> None:
        self.links: dict[str, str] = {}
        for module in (*(pkg[name] for name in PACKAGES), pkg):
            for name in (name for name in module.exports or () if isinstance(name, str)):
                path = f"{module.path}.{name}"
                found = module.members.get(name)
                same = isinstance(found, Module) and name in found.members  # a module and what is in it have one name
                self.links |= dict.fromkeys((name, path), f"{path}.{name}" if same else path)
        self.rewrite(pkg)

    def rewrite(self, thing: Object) -> None:
        """Of an object and all in it."""
        if thing.docstring:
            known = {p.name for p in thing.parameters} if isinstance(thing, Function) else set()
            if isinstance(thing, Class):
                known = {*thing.members, *(p.name for p in thing.parameters)}
            parts = re.split(r"\n\s*\n", thing.docstring.value)
            thing.docstring.value = "\n\n".join(listed(self.linked(part, thing.name), known) for part in parts)
        for member in thing.members.values():
            if not member.is_alias:
                self.rewrite(member)

    def linked(self, text: str, own: str) -> str:
        """`Name` as a link, where it is public and not the thing itself; stars and brackets as they stand."""
        parts = re.split(r"(``.+?``|`[^`]+`)", text)
        for i, part in enumerate(parts):
            target = self.links.get(part.strip("`"))
            if i % 2 and target and not target.endswith(f".{own}"):
                parts[i] = f"[{part}][{target}]"
            elif not i % 2:
                parts[i] = re.sub(r"(\*(?!\*)|\[)", r"\\\1", part)
        return "".join(parts)


def listed(part: str, known: set[str]) -> str:
    """A paragraph that begins with "name: " as a list with an item for each known name."""
    lines = part.split("\n")
    if not re.match(r"[a-z_]\w*(, \w+)*: ", lines[0]) or lines[0].split(":")[0].split(",")[0] not in known:
        return part
    text = "\n".join(line.strip() for line in lines)
    names = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    head = re.compile(rf"(?:^|(?<=[.;)]\s)|(?<=\n))((?:{names})(?:, (?:{names}))*): +")
    items = head.split(text)[1:]
    pairs = zip(items[::2], items[1::2], strict=True)
    return "\n".join(f"- **`{name}`**: {' '.join(told.split()).rstrip(';')}" for name, told in pairs)
