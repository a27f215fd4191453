"""GB/s of every kernel, beside a copy of the same bytes, torch eager and torch.compile.

    python -m logsnr.bench.kernels                                           one table of ratios; of a GPU, if any
    python -m logsnr.bench.kernels -k "combine_norm and 16K"                 a part of it, by pytest's expressions
    python -m pytest -o addopts=--import-mode=importlib bench/kernels.py     pytest-benchmark's own tables

Bytes are those of the operands and outputs, once each. The copy, the fastest of numba's and torch's, moves as many
and is timed before every round, so that a slow phase of the machine falls on both sides of a ratio; the median of the
ratios is printed. What is timed has just run for 5 ms, after a rest in which the threads of what came before fell
asleep: OpenMP's spin for 10 ms, and take the processors from all others. All write to tensors that exist; the
coefficients are constants of the compiled functions. Where torch.compile finds no C++ compiler its column stays empty.
A GPU does several calls before the clock is read, which then tells what a call takes in a loop: the larger of what the
host and what the device need for it.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table

# By the full name, as pytest loads this file by its path, outside the package.
from logsnr.kernels import Noise, Recurrence, combine, combine_norm, dynamic_threshold, scan

SIZES = {"16K": 1 << 14, "1M": 1 << 20, "8M": 1 << 23}
if torch.cuda.is_available():
    SIZES |= {"64M": 1 << 26}  # where a call takes longer than its launch
SECONDS, FEWEST, MOST = 1.0, 5, 500  # for the rounds of one benchmark, and how many these may be
CONTENDERS = ("logsnr", "eager", "compiled")
DEVICE, CALLS = ("cuda", 50) if torch.cuda.is_available() else ("cpu", 1)  # where, and how many at a time
SAMPLES = 8  # in a batch
WINDOW = 16  # nodes of a scan, which share the elements
F32, F16 = torch.float32, torch.float16
RTOL, ATOL, QUANTILE = 1e-3, 1e-5, 0.995


class Case(NamedTuple):
    """One kernel at one size: the call, the same in plain torch, and the bytes of operands and outputs. Both write
    the same tensors, and return them and what else they find."""

    ours: Callable[[], Any]
    plain: Callable[[], Any]
    moved: int


def _tensors(n: int, dtypes: Sequence[torch.dtype]) -> list[torch.Tensor]:
    return [torch.randn(SAMPLES, n // SAMPLES, device=DEVICE).to(dtype) for dtype in dtypes]


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _weighted(inputs: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """A sum as torch does it fastest: one pass for every operand."""
    total = inputs[0].float() * weights[0]
    for x, weight in zip(inputs[1:], weights[1:], strict=True):
        total = torch.add(total, x, alpha=weight)
    return total


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

    return Case(partial(combine, inputs, coefs, out=out, noise=noise), plain, _bytes(*inputs, *out))


def _combine_norm(n: int) -> Case:
    inputs, out = _tensors(n, [F32] * 4), _tensors(n, [F32])
    rows = np.linspace(-0.9, 1.1, 16).reshape(4, 4)

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        total, error, a, b = (_weighted(inputs, row) for row in rows.tolist())
        out[0].copy_(total)
        quotient = error / (ATOL + RTOL * torch.maximum(a.abs(), b.abs()))
        return out[0], quotient.square().mean(1).sqrt()

    ours = partial(combine_norm, inputs, rows[:1], error=rows[1], scale=rows[2:], rtol=RTOL, atol=ATOL, out=out)
    return Case(ours, plain, _bytes(*inputs, *out))


def _scan(n: int) -> Case:
    outputs, nodes, new = (x.reshape(WINDOW, SAMPLES, -1) for x in _tensors(n, [F32] * 3))
    start = torch.randn(1, *nodes.shape[1:], device=DEVICE)
    weights = np.random.default_rng(0).uniform(0.1, 0.9, (WINDOW, 1, 2))
    calls = Recurrence(weights, np.zeros(WINDOW + 1, dtype=np.int64), 1)

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        x = start[0]
        for k, (model, state) in enumerate(weights[:, 0].tolist()):
            x = _weighted([outputs[k], x], [model, state])
            new[k].copy_(x)
        return new, (new - nodes).square().sum(2, dtype=torch.float64)

    return Case(partial(scan, start, [outputs], nodes, calls, out=new), plain, _bytes(start, outputs, nodes, new))


def _dynamic_threshold(n: int) -> Case:
    (x,), (out,) = _tensors(n, [F32]), _tensors(n, [F32])

    def plain() -> tuple[torch.Tensor, torch.Tensor]:
        s = torch.quantile(x.abs(), QUANTILE, dim=1, keepdim=True).clamp(min=1.0)
        return out.copy_(x.clamp(-s, s) / s), s[:, 0]

    return Case(partial(dynamic_threshold, x, quantile=QUANTILE, out=out), plain, _bytes(x, out))


CASES: dict[str, Callable[[int], Case]] = {
    "combine 2 to 1": partial(_combine, [F32] * 2, [F32]),
    "combine 2 to 1, noise": partial(_combine, [F32] * 2, [F32], noisy=True),
    "combine 3 to 2": partial(_combine, [F32] * 3, [F32] * 2),
    "combine 5 to 2": partial(_combine, [F32] * 5, [F32] * 2),
    "combine 3 to 3, fp16 model": partial(_combine, [F16, F32, F32], [F32, F32, F16]),
    "combine_norm 4 to 1": _combine_norm,
    f"scan of {WINDOW} calls": _scan,
    "dynamic_threshold": _dynamic_threshold,
}


def repeated(call: Callable[[], object]) -> Callable[[], None]:
    """CALLS of them, waited for."""

    def calls() -> None:
        for _ in range(CALLS):
            call()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return calls


def calm(call: Callable[[], object]) -> None:
    """Until no thread spins but those that ``call`` itself keeps awake, and the processors are at work again."""
    if DEVICE == "cpu":
        sleep(0.03)
        began = perf_counter()
        while perf_counter() < began + 0.005:
            call()


@cache
def _copies() -> list[Callable[..., None]]:
    """Numba's serial loop, which becomes a memcpy, and its parallel one."""
    import numba  # of the extra "bench": the tests do without it

    def copy(target, source):  # type: ignore[no-untyped-def]
        for i in numba.prange(target.size):
            target[i] = source[i]

    return [numba.njit(parallel=parallel)(copy) for parallel in (False, True)]


class Copy:
    """Copies as many bytes as a case moves; ``seconds`` has what the fastest of numba's loops and torch took (on a
    GPU, torch), call by call."""

    def __init__(self, moved: int) -> None:
        target, source = (torch.ones(moved // 8, device=DEVICE) for _ in range(2))
        self.ways: list[Callable[[], object]] = [repeated(partial(target.copy_, source))]
        if DEVICE == "cpu":
            self.ways += [partial(copy, target.numpy(), source.numpy()) for copy in _copies()]
        self.seconds: list[float] = []
        self.threads = torch.get_num_threads()
        self()  # compiles

    def __call__(self) -> None:
        times = []
        for way in self.ways:
            calm(way)
            began = perf_counter()
            way()
            times.append(perf_counter() - began)
        torch.set_num_threads(self.threads)  # numba's parallel loop sets it to 1
        self.seconds.append(min(times))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_bandwidth(benchmark: Any, name: str, size: str, contender: str) -> None:
    """Time one kernel at one size; the rates are in ``extra_info``."""
    case = CASES[name](SIZES[size])
    copy = Copy(case.moved)
    torch.compiler.reset()  # else functions of the same code count against a limit
    functions = {"logsnr": case.ours, "eager": case.plain, "compiled": torch.compile(case.plain, dynamic=False)}
    benchmark.group = f"{name}, {size} elements"
    function = repeated(functions[contender])
    try:
        function()  # compiles
    except torch._dynamo.exc.BackendCompilerFailed as error:
        pytest.skip(f"torch.compile: {error}")
    began = perf_counter()
    copy()
    function()
    rounds = int(SECONDS / (perf_counter() - began))
    copy.seconds.clear()

    def before() -> None:
        copy()
        calm(function)

    benchmark.pedantic(function, setup=before, rounds=min(max(rounds, FEWEST), MOST))
    shares = [c / own for c, own in zip(copy.seconds, benchmark.stats.stats.data, strict=True)]
    call = benchmark.stats.stats.min / CALLS
    benchmark.extra_info |= {"us": call * 1e6, "GB/s": case.moved / call / 1e9, "of a copy": median(shares)}


def table(results: Sequence[dict[str, Any]]) -> Table:
    """What pytest-benchmark has written, with every contender's share of the rate of a copy."""
    columns = ("kernel", "elements", "us", "GB/s", "of a copy", "eager", "compiled")
    made = Table(*columns, box=None)
    for column in made.columns[2:]:
        column.justify = "right"
    found = {tuple(result["params"][key] for key in ("name", "size", "contender")): result for result in results}
    for name in CASES:
        for size in SIZES:
            ours, *others = (found.get((name, size, contender)) for contender in CONTENDERS)
            if ours is not None:
                shares = [result and result["extra_info"]["of a copy"] for result in (ours, *others)]
                made.add_row(
                    *(name, size, f"{ours['extra_info']['us']:.1f}", f"{ours['extra_info']['GB/s']:.1f}"),
                    *("-" if share is None else f"{share:.2f}" for share in shares),
                )
    return made


def main() -> int:
    """Run the benchmarks and print one table."""
    with TemporaryDirectory() as folder:
        written = Path(folder) / "results.json"
        options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
        quiet = ["--benchmark-columns=min", "--benchmark-json", str(written)]
        status = pytest.main([*options, *quiet, __file__, *sys.argv[1:]])
        results = json.loads(written.read_text())["benchmarks"] if written.exists() else []
    console = Console()
    console.print(table(results))
    where = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{torch.get_num_threads()} threads"
    console.print(
        f"{where}; the last three columns: the rate of this library, of torch and of "
        "torch.compile, as a share of the rate of a copy"
    )
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
