"""What windows take: measured, and the window that fits."""

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import logsnr
from logsnr.solvers import picard_memory
from logsnr.solvers.lower import Lowered, lower
from logsnr.solvers.picard_memory import SHARE, auto_window, free_bytes, window_bytes

SCH, STEPS, SIZE = logsnr.VPLinear(), 120, 1000


class Peak(TorchDispatchMode):
    """The most bytes of tensors alive at a time, of those that operations have returned."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                self.alive[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: found for key, found in self.alive.items() if not found[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self.alive.values()))
        return result


def planned(solver: str, dtype: torch.dtype) -> Lowered:
    program = logsnr.solver(solver).program(SCH, logsnr.grid(SCH, STEPS))
    return lower(program, SCH, "v", state=torch.float32, model=dtype)


def setting(samples: int, dtype: torch.dtype) -> tuple[logsnr.Denoiser, torch.Tensor]:
    x = torch.randn(samples, SIZE, generator=torch.Generator().manual_seed(0)).to(dtype)
    return logsnr.Denoiser(lambda x, t: x * 0.5, SCH, "v", dtype=dtype), x


@pytest.mark.parametrize("accelerate", [None, "secant", "anderson"])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "sde-dpmpp-2m"])
@pytest.mark.parametrize(("samples", "dtype"), [(1, torch.float32), (1, torch.float16), (4, torch.float32)])
def test_the_bytes_are_those_measured(samples: int, dtype: torch.dtype, solver: str, accelerate: Any) -> None:
    """What is alive at the peak is what `window_bytes` says up to an eighth, and never more than a tenth above;
    a window of 60 is not taken for one of 80."""
    den, x = setting(samples, dtype)
    lowered = planned(solver, dtype)
    for size in (60, 80):
        with Peak() as peak:
            parallel = logsnr.Picard(size, accelerate=accelerate)
            logsnr.solve(den, x, solver=solver, steps=STEPS, seed=0, parallel=parallel)
        told = window_bytes(lowered, x, size, anderson=accelerate == "anderson")
        shape, given = (samples, SIZE), {"dtype": dtype, "accelerate": accelerate}
        assert told == logsnr.analysis.picard_bytes(solver, SCH, shape, size, steps=STEPS, **given)
        assert 0.85 < peak.bytes / told < 1.1
        other = window_bytes(lowered, x, 140 - size, anderson=accelerate == "anderson")
        assert not 0.85 < peak.bytes / other < 1.1


def test_the_largest_window_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of "auto" takes no more than its share of the memory that is free, and one call more would; it is at
    least 1 and at most the whole program."""
    _, x = setting(3, torch.float32)
    lowered = planned("dpmpp-2m", torch.float32)
    for free in (4e6, 1e7):
        monkeypatch.setattr(picard_memory, "free_bytes", lambda device, free=free: int(free))
        size = auto_window(lowered, x)
        assert 1 < size < STEPS
        assert window_bytes(lowered, x, size) <= SHARE * free < window_bytes(lowered, x, size + 1)
        sizes = list[int]()
        watched = logsnr.Denoiser(lambda x, t, sizes=sizes: sizes.append(len(x)) or x * 0.5, SCH, "v")  # type: ignore[func-returns-value]
        logsnr.sample(watched, x, steps=STEPS, parallel=logsnr.Picard("auto"))
        assert sizes[0] == 3 * size
    for free, wanted in ((1.0, 1), (1e12, STEPS)):
        monkeypatch.setattr(picard_memory, "free_bytes", lambda device, free=free: int(free))
        assert auto_window(lowered, x) == wanted


def test_free_memory() -> None:
    """The system tells of more than nothing; a device without memory is refused."""
    assert free_bytes(torch.device("cpu")) > 1 << 20
    with pytest.raises(ValueError, match=r'window = "auto" cannot tell how much memory is free on meta'):
        free_bytes(torch.device("meta"))
