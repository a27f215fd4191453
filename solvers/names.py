"""Error texts for names that do not exist."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: object, names: Iterable[str]) -> str:
    """The end of a sentence: the names that are nearest to ``name``, or all of them if none is near."""
    known = list(names)
    close = get_close_matches(str(name), known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; choose from {', '.join(known)}"
