"""Trees of dictionaries, lists and tuples: their leaves, by the keys on the way to them."""

from collections.abc import Mapping
from typing import Any

Path = tuple[Any, ...]  # the keys and numbers on the way to a leaf


def leaves(tree: Any, path: Path = ()) -> dict[Path, Any]:
    """The leaves of a tree of dictionaries, lists and tuples, by the keys on the way to them."""
    if not isinstance(tree, (Mapping, list, tuple)):
        return {path: tree}
    parts = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    return {inner: leaf for key, part in parts for inner, leaf in leaves(part, (*path, key)).items()}


def rebuilt(tree: Any, found: Mapping[Path, Any], path: Path = ()) -> Any:
    """A tree of the same form with other leaves."""
    if not isinstance(tree, (Mapping, list, tuple)):
        return found[path]
    if isinstance(tree, Mapping):
        return {key: rebuilt(part, found, (*path, key)) for key, part in tree.items()}
    parts = [rebuilt(part, found, (*path, k)) for k, part in enumerate(tree)]
    return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)


def matched(name: str, tree: Any, like: Any) -> dict[Path, Any]:
    """The leaves of ``tree``; ValueError unless they are those of ``like``."""
    found, wanted = leaves(tree), leaves(like)
    if found.keys() != wanted.keys():
        raise ValueError(f"{name} must be a tree with the leaves {[*map(named, wanted)]}, not {[*map(named, found)]}")
    return {path: found[path] for path in wanted}


def each(name: str, value: Any, like: Any) -> dict[Path, Any]:
    """What ``value`` is for every leaf: a tree, or one for all."""
    if isinstance(value, (Mapping, list, tuple)):
        return matched(name, value, like)
    return dict.fromkeys(leaves(like), value)


def named(path: Path) -> str:
    return "/".join(map(str, path))
