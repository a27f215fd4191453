"""Objects that are values: two are the same if they are made of the same."""

from functools import cached_property
from typing import Any


class Value:
    """Compared and hashed by ``key``, all that makes two of a type the same. It may be long: its hash is taken once."""

    key: Any

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Value) and type(other) is type(self) and self.key == other.key)

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        # In another process strings have another hash.
        return {name: value for name, value in vars(self).items() if name not in ("key", "_hash")}

    @cached_property
    def _hash(self) -> int:
        return hash(self.key)
