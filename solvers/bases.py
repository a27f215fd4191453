"""Orthogonal bases of samples: the discrete cosine transform, and principal components.

A program in a basis has coefficients by coordinate, x' = Q x, and a run has the coordinates for its states; noise keeps
its law, as Q is orthogonal. Samples are transformed one by one, by products of matrices of the same sizes whatever the
batch: on CPUs a sample has the same bits alone as in any batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np
import torch

from .arrays import Array
from .values import Value

CLOSE = 1e-10  # to which the matrix of a basis must be orthogonal
LARGEST = 1 << 14  # elements of samples with a matrix of their own: it has 2 GiB


class Basis(ABC):
    """Orthogonal coordinates of samples, (B, *event), of the shape of the samples themselves; bases are values."""

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The coordinates of ``x`` (B, *event), floating, in its dtype."""

    @abstractmethod
    def back(self, x: torch.Tensor) -> torch.Tensor:
        """The samples of coordinates (B, *event): the inverse of `forward`."""

    @abstractmethod
    def check(self, event: tuple[int, ...]) -> None:
        """ValueError unless samples of this shape have such coordinates."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What `basis_from_json` reads."""


@dataclass(frozen=True)
class DCT(Basis):
    """The orthonormal DCT-II over the last one or two ``axes`` of samples: frequencies, from the lowest to the highest.

    Raises ValueError for another number of axes.
    """

    axes: int = 2

    def __post_init__(self) -> None:
        if type(self.axes) is not int or self.axes not in (1, 2):
            raise ValueError(f"axes must be 1 or 2, the last ones of a sample, not {self.axes!r:.60}")

    def __str__(self) -> str:
        return "dct"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._turned(x, inverse=False)

    def back(self, x: torch.Tensor) -> torch.Tensor:
        return self._turned(x, inverse=True)

    def check(self, event: tuple[int, ...]) -> None:
        if len(event) < self.axes:
            raise ValueError(f"the DCT over {self.axes} axes needs samples of as many, not of shape {tuple(event)}")

    def to_json(self) -> dict[str, Any]:
        return {"kind": "dct", "axes": self.axes}

    def _turned(self, x: torch.Tensor, inverse: bool) -> torch.Tensor:
        if not x.numel():
            return x
        flat = x.reshape(-1, *x.shape[-2:]) if self.axes == 2 else x.reshape(len(x), -1, x.shape[-1])
        right = _on(_cosines(x.shape[-1]), x)
        flat = _product(flat, (right if inverse else right.mT).expand(len(flat), -1, -1))
        if self.axes == 2:
            left = _on(_cosines(x.shape[-2]), x)
            flat = _product((left.mT if inverse else left).expand(len(flat), -1, -1), flat)
        return flat.reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Principal(Value, Basis):
    """The coordinates of an orthogonal ``matrix`` (n, n), float64, of samples of the shape ``event`` with n elements:
    row k is the direction of coordinate k, both in the order of memory.

    Raises ValueError for other shapes, and for a matrix that is not orthogonal to 1e-10.
    """

    matrix: Array
    event: tuple[int, ...]
    _kept: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.event, (tuple, list)) or not all(type(n) is int and n > 0 for n in self.event):
            raise ValueError(f"event must be the shape of a sample, not {self.event!r:.60}")
        n = prod(self.event)
        check_size(self.event)
        try:
            matrix = np.array(self.matrix, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"matrix must be of numbers, not {self.matrix!r:.60}") from None
        if matrix.shape != (n, n):
            raise ValueError(f"matrix must be ({n}, {n}) for samples of shape {tuple(self.event)}, not {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise ValueError("matrix must be finite")
        with np.errstate(over="ignore", invalid="ignore"):
            wrong = np.abs(matrix @ matrix.T - np.eye(n)).max()
        if not wrong <= CLOSE:
            raise ValueError(f"matrix must be orthogonal to {CLOSE:g}, but its rows are off by {wrong:.3g}")
        matrix.setflags(write=False)
        for name, value in (("matrix", matrix), ("event", tuple(self.event)), ("_kept", {})):
            object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return Principal, (self.matrix, self.event)

    def __str__(self) -> str:
        return "pca"

    def __repr__(self) -> str:
        return f"Principal{self.event}"

    @cached_property
    def key(self) -> tuple[Any, ...]:
        return self.event, self.matrix.tobytes()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._turned(x, self._matrix(x).mT)

    def back(self, x: torch.Tensor) -> torch.Tensor:
        return self._turned(x, self._matrix(x))

    def check(self, event: tuple[int, ...]) -> None:
        if tuple(event) != self.event:
            raise ValueError(f"the basis is of samples of shape {self.event}, not {tuple(event)}")

    def to_json(self) -> dict[str, Any]:
        return {"kind": "pca", "event": self.event, "matrix": self.matrix.tolist()}

    def _matrix(self, x: torch.Tensor) -> torch.Tensor:
        key = x.dtype, x.device
        if key not in self._kept:
            self._kept[key] = _on(self.matrix, x)
        return self._kept[key]

    def _turned(self, x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        flat = x.reshape(len(x), 1, len(matrix))
        return _product(flat, matrix.expand(len(x), -1, -1)).reshape(x.shape) if len(x) else x


def to_coordinates(basis: Basis | None, x: torch.Tensor) -> torch.Tensor:
    """`Basis.forward`; where there is no basis, the elements themselves."""
    return x if basis is None else basis.forward(x)


def to_samples(basis: Basis | None, x: torch.Tensor) -> torch.Tensor:
    """`Basis.back`; where there is no basis, the elements themselves."""
    return x if basis is None else basis.back(x)


def check_size(event: Sequence[int]) -> None:
    """ValueError for samples that are too large for a matrix of their own."""
    if prod(event) > LARGEST:
        raise ValueError(f"a matrix for {prod(event)} elements is too large, for at most {LARGEST}; take basis='dct'")


def check_broadcast(basis: Basis, shape: Sequence[int]) -> None:
    """ValueError for coefficients of a shape that does not broadcast to that of a basis which has one."""
    event = basis.event if isinstance(basis, Principal) else None
    if event is None:
        return
    try:
        fits = np.broadcast_shapes(tuple(shape), event) == event
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"mean and variance of shape {tuple(shape)} do not fit a basis of samples of shape {event}")


def basis_of(value: Any, axes: int) -> Basis | None:
    """A `Basis` as it is, one by its name, None for "pixel". axes: of a sample. ValueError for all else."""
    if value is None or isinstance(value, Basis):
        return value
    if isinstance(value, str) and value == "pixel":
        return None
    if isinstance(value, str) and value == "dct":
        return DCT(min(max(axes, 1), 2))
    if isinstance(value, str) and value == "pca":
        raise ValueError("basis = 'pca' needs the components: Wiener.from_data, or Wiener.from_moments, finds them")
    raise ValueError(f"basis must be 'pixel', 'dct', 'pca' or a logsnr.solvers.Basis, not {value!r:.60}")


def basis_from_json(data: Any) -> Basis | None:
    """What `Basis.to_json` has given; ValueError for anything else."""
    if data is None:
        return None
    fields = {"dct": {"kind", "axes"}, "pca": {"kind", "event", "matrix"}}
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or data.keys() != fields.get(kind):
        raise ValueError(f"basis must be a dct with axes, or a pca with event and matrix, not {data!r:.60}")
    if kind == "dct":
        return DCT(data["axes"])
    rows = data["matrix"]
    if not isinstance(rows, list) or not all(isinstance(r, list) and len(r) == len(rows) for r in rows):
        raise ValueError("matrix must be a list of rows, as many as each has numbers")
    if not all(type(c) in (int, float) for row in rows for c in row):
        raise ValueError("matrix must be of numbers")
    return Principal(rows, data["event"])  # type: ignore[arg-type]


@lru_cache(maxsize=16)
def _cosines(n: int) -> Array:
    """(n, n): row k is sqrt(2 / n) cos(pi (j + 1/2) k / n), row 0 divided by sqrt 2."""
    steps = np.outer(np.arange(n), 2 * np.arange(n) + 1) % (4 * n)  # of pi / (2 n): exact
    matrix: Array = np.sqrt(2 / n) * np.cos(np.pi / (2 * n) * steps)
    matrix[0] = np.sqrt(1 / n)
    return matrix


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Of batches of matrices, in their own dtype: torch.autocast, which is for models, would take less."""
    kind = a.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return torch.bmm(a, b)
    with torch.autocast(kind, enabled=False):
        return torch.bmm(a, b)


def _on(matrix: Array, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode(False):  # for runs outside it too
        return torch.from_numpy(matrix.copy()).to(x.dtype).to(x.device)
