"""The coefficients of `combine`, prepared once for whatever runs them."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
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

    def made(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is kept, or else what ``make`` makes."""
        found = self.get(key)
        if found is None:
            found = self[key] = make()
        return found


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
        event, kind = (*event,) if self.by_element else (), np.float64 if wide is torch.float64 else np.float32
        return self.kept.made((wide, event), lambda: np.array(_by_element(self.coefs, event), dtype=kind, order="C"))

    def used(self, wide: torch.dtype) -> tuple[tuple[bool, ...], ...]:
        """By output, which columns enter its sum: those with a coefficient other than 0 in the dtype ``wide``."""
        return self.kept.made(("used", wide), lambda: used_columns(self.coefs, wide))

    def on(self, device: torch.device, wide: torch.dtype, event: Sequence[int]) -> torch.Tensor:
        """`rounded` as a tensor on ``device``: copied there at most once."""

        def copy() -> torch.Tensor:
            with torch.inference_mode(False):
                return torch.from_numpy(self.rounded(wide, event)).to(device)

        key = device, wide, (*event,) if self.by_element else ()
        return self.kept.made(key, copy)


ONE = Table(np.ones((1, 1)))


def table(coefs: Any) -> Table:
    """``coefs``, a tensor, an array or a `Table`, as a table: the same one for the same few numbers."""
    if isinstance(coefs, Table):
        return coefs
    array = np.asarray(coefs.detach().cpu() if isinstance(coefs, torch.Tensor) else coefs, dtype=np.float64)
    return _table(array.shape, array.tobytes()) if array.ndim == 2 else Table(array)


@lru_cache(maxsize=1024)
def _table(shape: tuple[int, ...], numbers: bytes) -> Table:
    return Table(np.frombuffer(numbers).reshape(shape))


def check_event(given: Sequence[int], event: Sequence[int]) -> None:
    """Raise ValueError where coefficients by element, of the shape ``given``, do not go with samples of ``event``."""
    if len(given) > len(event) or any(e not in (1, n) for e, n in zip(given[::-1], event[::-1], strict=False)):
        raise ValueError(f"per-element coefs of shape {(*given,)} do not broadcast against {tuple(event)}")


def used_columns(coefs: np.ndarray, wide: torch.dtype) -> tuple[tuple[bool, ...], ...]:
    """(R, K): whether a coefficient is not 0 in the dtype in which sums are taken; by element, whether one is."""
    used = coefs.astype(np.float64 if wide is torch.float64 else np.float32) != 0
    return tuple(map(tuple, used.reshape(*coefs.shape[:2], -1).any(axis=2).tolist()))


def _by_element(coefs: np.ndarray, event: Sequence[int]) -> np.ndarray:
    if coefs.ndim == 2:
        return coefs
    missing = (1,) * (len(event) - (coefs.ndim - 2))
    spread = coefs.reshape(*coefs.shape[:2], *missing, *coefs.shape[2:])
    return np.broadcast_to(spread, (*coefs.shape[:2], *event)).reshape(*coefs.shape[:2], -1)
