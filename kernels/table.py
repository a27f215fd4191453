"""The coefficients of `combine`, prepared once for whatever runs them."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch


class Recent(OrderedDict[Any, Any]):
    """A dictionary that forgets the oldest of more than ``MOST``, as shapes and intervals come without end."""

    MOST = 64

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        while len(self) > self.MOST:
            self.popitem(last=False)


class Table:
    """Coefficients (R, K), or (R, K, *event) by element, float64 and read-only; what the backends make of them is
    kept, so a table that is used again costs nothing."""

    def __init__(self, coefs: np.ndarray) -> None:
        self.coefs = np.array(coefs, dtype=np.float64, order="C")
        if not np.isfinite(self.coefs).all():
            raise ValueError("coefs must be finite")
        with torch.inference_mode(False):  # tables are kept, here and below, for runs outside it too
            self.tensor = torch.from_numpy(self.coefs)
        self.coefs.setflags(write=False)
        self.shape, self.by_element = self.coefs.shape, self.coefs.ndim > 2
        self.kept = Recent()  # results of the methods, and what the backends prepare

    def rounded(self, wide: torch.dtype, event: Sequence[int]) -> np.ndarray:
        """In the dtype in which sums are taken: (R, K), or (R, K, elements of the event); contiguous."""
        key = wide, (*event,) if self.by_element else None
        found: np.ndarray | None = self.kept.get(key)
        if found is None:
            kind = np.float64 if wide is torch.float64 else np.float32
            found = self.kept[key] = np.array(_by_element(self.coefs, event), dtype=kind, order="C")
        return found

    def used(self, wide: torch.dtype) -> tuple[tuple[bool, ...], ...]:
        """By output, which columns enter its sum: those with a coefficient other than 0 in the dtype ``wide``."""
        key = "used", wide
        found: tuple[tuple[bool, ...], ...] | None = self.kept.get(key)
        if found is None:
            narrow = self.coefs if wide is torch.float64 else self.coefs.astype(np.float32)
            found = self.kept[key] = used_columns(narrow)
        return found

    def on(self, device: torch.device, wide: torch.dtype, event: Sequence[int]) -> torch.Tensor:
        """`rounded` as a tensor on ``device``: copied there at most once."""
        key = device, wide, (*event,) if self.by_element else None
        found: torch.Tensor | None = self.kept.get(key)
        if found is None:
            with torch.inference_mode(False):
                found = self.kept[key] = torch.from_numpy(self.rounded(wide, event)).to(device)
        return found


ONE = Table(np.ones((1, 1)))


def table(coefs: Any) -> Table:
    """``coefs``, a tensor, an array or a `Table`, as a table: the same one for the same few numbers."""
    if isinstance(coefs, Table):
        return coefs
    array = float64(coefs)
    return _table(array.shape, array.tobytes()) if array.ndim == 2 else Table(array)


def float64(numbers: Any) -> np.ndarray:
    """An array of a tensor, an array or nested numbers."""
    return np.asarray(numbers.detach().cpu() if isinstance(numbers, torch.Tensor) else numbers, dtype=np.float64)


@lru_cache(maxsize=1024)
def _table(shape: tuple[int, ...], numbers: bytes) -> Table:
    return Table(np.frombuffer(numbers).reshape(shape))


def check_event(given: Sequence[int], event: Sequence[int]) -> None:
    """Raise ValueError where coefficients by element, of the shape ``given``, do not go with samples of ``event``."""
    if len(given) > len(event) or any(e not in (1, n) for e, n in zip(given[::-1], event[::-1], strict=False)):
        raise ValueError(f"per-element coefs of shape {(*given,)} do not broadcast against {tuple(event)}")


def used_columns(coefs: np.ndarray) -> tuple[tuple[bool, ...], ...]:
    return tuple(map(tuple, (coefs != 0).reshape(*coefs.shape[:2], -1).any(axis=2).tolist()))


def _by_element(coefs: np.ndarray, event: Sequence[int]) -> np.ndarray:
    if coefs.ndim == 2:
        return coefs
    missing = (1,) * (len(event) - (coefs.ndim - 2))
    spread = coefs.reshape(*coefs.shape[:2], *missing, *coefs.shape[2:])
    return np.broadcast_to(spread, (*coefs.shape[:2], *event)).reshape(*coefs.shape[:2], -1)
