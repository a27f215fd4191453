"""What windows take: measured, and the window that fits."""

from pathlib import Path
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


V2 = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
V1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.mark.parametrize(("line", "files"), [("0::/jobs/7", V2), ("3:cpu,memory:/jobs/7", V1)])
@pytest.mark.parametrize(("limits", "free"), [
    ({}, 8 << 20), ({"jobs/7": "max", "jobs": "max"}, 8 << 20), ({"jobs/7": "5000"}, 3300),
    ({"jobs/7": "5000", "jobs": "4000"}, 2300), ({"": "4500"}, 2800), ({"jobs/7": "1000"}, 300),
])  # fmt: skip
def test_what_a_container_leaves(
    line: str,
    files: tuple[str, ...],
    limits: dict[str, str],
    free: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a limit on the process's group, or on one around it, what is used goes off, but for files' caches: of 2000
    bytes 300; of several limits the least counts, and without any the system's memory."""
    top, limit, used, cached = files
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16384 kB\nMemAvailable:  8192 kB\nHugePages_Total: 0\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"5:devices:/\n{line}\n")
    for group, told in limits.items():
        folder = tmp_path / top / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ((limit, told), (used, "2000"), ("memory.stat", f"anon 1700\n{cached} 300")):
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(picard_memory, "SYSTEM", tmp_path)
    assert free_bytes(torch.device("cpu")) == free
