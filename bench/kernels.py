"""GB/s of every kernel, beside a copy of the same bytes, torch eager and torch.compile.

    python -m logsnr.bench.kernels                     one table of ratios; of a GPU, if any
    python -m logsnr.bench.kernels -k "noise and 16K"  a part of it, by pytest's expressions
    python -m pytest -o addopts=--import-mode=importlib bench/kernels.py     pytest-benchmark's own tables

Bytes are those of operands and outputs. The copy, the fastest of numba's and torch's, moves as many and is timed before
every round: a slow phase of the machine falls on both sides of a ratio. The table has the medians. Functions run for
5 ms before they are timed, after a rest in which OpenMP's threads stop to spin, and write to tensors that exist. On a
GPU several calls are timed as one.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial, reduce
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table

# By the full name, as pytest loads this file by its path, outside the package.
from logsnr.kernels import Noise, Recurrence, combine, scan

SIZES = {"16K": 1 << 14, "1M": 1 << 20, "8M": 1 << 23} | ({"64M": 1 << 26} if torch.cuda.is_available() else {})
ROUNDS = 15  # of one benchmark
CONTENDERS = ("logsnr", "eager", "compiled")
DEVICE, CALLS = ("cuda", 50) if torch.cuda.is_available() else ("cpu", 1)
SAMPLES, WINDOW = 8, 16  # in a batch; nodes of a scan, which share the elements
F32, F16 = torch.float32, torch.float16


class Case(NamedTuple):
    """One kernel at one size: the call, the same in plain torch, and the bytes of operands and outputs."""

    ours: Callable[[], Any]
    plain: Callable[[], Any]
    moved: int


def _tensors(n: int, dtypes: Sequence[torch.dtype]) -> list[torch.Tensor]:
    return [torch.randn(SAMPLES, n // SAMPLES, device=DEVICE).to(dtype) for dtype in dtypes]


def _weighted(inputs: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """A sum as torch does it fastest: one pass for every operand."""
    first, *rest = zip(inputs, weights, strict=True)
    return reduce(lambda total, term: torch.add(total, term[0], alpha=term[1]), rest, first[0].float() * first[1])


def _combine(read: Sequence[torch.dtype], written: Sequence[torch.dtype], n: int, noisy: bool = False) -> Case:
    inputs, out = _tensors(n, read), _tensors(n, written)
    coefs = np.linspace(-0.9, 1.1, len(out) * (len(inputs) + noisy)).reshape(len(out), -1)
    samples = torch.arange(SAMPLES, device=DEVICE)
    noise = Noise(samples, samples, ((0, 0),)) if noisy else None

    def plain() -> list[torch.Tensor]:
        drawn = [torch.randn_like(out[0])] if noisy else []
        for row, target in zip(coefs.tolist(), out, strict=True):
            target.copy_(_weighted([*inputs, *drawn], row))
        return out

    return Case(partial(combine, inputs, coefs, out=out, noise=noise), plain, sum(x.nbytes for x in (*inputs, *out)))


def _scan(n: int) -> Case:
    outputs, nodes, new = (x.reshape(WINDOW, SAMPLES, -1) for x in _tensors(n, [F32] * 3))
    start = torch.randn(1, *nodes.shape[1:], device=DEVICE)
    weights = np.random.default_rng(0).uniform(0.1, 0.9, (WINDOW, 1, 2))
    calls = Recurrence(weights, np.zeros(WINDOW + 1, dtype=np.int64), 1)

    def plain() -> tuple[torch.Tensor, ...]:
        x = start[0]
        for k, (model, state) in enumerate(weights[:, 0].tolist()):
            x = _weighted([outputs[k], x], [model, state])
            new[k].copy_(x)
        return new, (new - nodes).square().sum(2, dtype=torch.float64)

    return Case(
        partial(scan, start, [outputs], nodes, calls, out=new),
        plain,
        sum(x.nbytes for x in (start, outputs, nodes, new)),
    )


CASES: dict[str, Callable[[int], Case]] = {
    "combine 2 to 1": partial(_combine, [F32] * 2, [F32]),
    "combine 2 to 1, noise": partial(_combine, [F32] * 2, [F32], noisy=True),
    "combine 3 to 2": partial(_combine, [F32] * 3, [F32] * 2),
    "combine 5 to 2": partial(_combine, [F32] * 5, [F32] * 2),
    "combine 3 to 3, fp16 model": partial(_combine, [F16, F32, F32], [F32, F32, F16]),
    f"scan of {WINDOW} calls": _scan,
}


def repeated(call: Callable[[], object]) -> None:
    """CALLS of them, waited for."""
    for _ in range(CALLS):
        call()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def calm(call: Callable[[], object]) -> None:
    """Until no thread spins but those that ``call`` itself keeps awake, and the processors are at work again."""
    if DEVICE == "cpu":
        sleep(0.03)
        began = perf_counter()
        while perf_counter() < began + 0.005:
            call()


def _copy(target, source):  # type: ignore[no-untyped-def]
    for i in numba.prange(target.size):  # serial, it becomes a memcpy
        target[i] = source[i]


COPIES = [numba.njit(parallel=parallel)(_copy) for parallel in (False, True)]


def copy_seconds(target: torch.Tensor, source: torch.Tensor) -> float:
    """What the fastest of numba's loops and torch takes; on a GPU, torch."""
    ways: list[Callable[[], object]] = [partial(target.copy_, source)]
    if DEVICE == "cpu":
        ways += [partial(copy, target.numpy(), source.numpy()) for copy in COPIES]
    times, threads = [], torch.get_num_threads()
    for way in ways:
        calm(way)
        began = perf_counter()
        repeated(way)
        times.append(perf_counter() - began)
    torch.set_num_threads(threads)  # numba's parallel loop sets it to 1
    return min(times)


@torch.no_grad()
@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_bandwidth(benchmark: Any, name: str, size: str, contender: str) -> None:
    """Time one kernel at one size; the rates are in ``extra_info``."""
    case, copied = CASES[name](SIZES[size]), list[float]()
    ends = [torch.ones(case.moved // 8, device=DEVICE) for _ in range(2)]
    torch.compiler.reset()  # else functions of the same code count against a limit
    functions = {"logsnr": case.ours, "eager": case.plain, "compiled": torch.compile(case.plain, dynamic=False)}
    benchmark.group = f"{name}, {size} elements"
    function = partial(repeated, functions[contender])
    try:
        copy_seconds(*ends)  # compiles
        function()
    except torch._dynamo.exc.BackendCompilerFailed as error:
        pytest.skip(f"torch.compile: {error}")

    def before() -> None:
        copied.append(copy_seconds(*ends))
        calm(function)

    benchmark.pedantic(function, setup=before, rounds=ROUNDS)
    shares = [c / own for c, own in zip(copied, benchmark.stats.stats.data, strict=True)]
    call = benchmark.stats.stats.min / CALLS
    benchmark.extra_info |= {"us": call * 1e6, "GB/s": case.moved / call / 1e9, "of a copy": median(shares)}


def table(results: Sequence[dict[str, Any]]) -> Table:
    """What pytest-benchmark has written, with every contender's share of the rate of a copy."""
    made = Table("kernel", "elements", "us", "GB/s", "of a copy", "eager", "compiled", box=None)
    for column in made.columns[2:]:
        column.justify = "right"
    found = {tuple(r["params"][key] for key in ("name", "size", "contender")): r["extra_info"] for r in results}
    for name, size in dict.fromkeys(key[:2] for key in found):
        ours, *others = (found.get((name, size, contender)) for contender in CONTENDERS)
        cells = [(ours, "us", 1), (ours, "GB/s", 1), *((one, "of a copy", 2) for one in (ours, *others))]
        made.add_row(name, size, *(f"{one[key]:.{digits}f}" if one else "-" for one, key, digits in cells))
    return made


def main() -> int:
    """Run the benchmarks and print one table."""
    with TemporaryDirectory() as folder:
        written = Path(folder) / "results.json"
        options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
        options += ["--benchmark-columns=min", "--benchmark-json", str(written)]
        status = pytest.main([*options, __file__, *sys.argv[1:]])
        results = json.loads(written.read_text())["benchmarks"] if written.exists() else []
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} threads"
    Console().print(table(results), f"{where}; the last three columns: rates as shares of that of a copy")
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
