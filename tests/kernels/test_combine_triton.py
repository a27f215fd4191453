"""combine in Triton: interpreted, its results are the reference's; compiled for GPUs, it moves what it must and
nothing else."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from aot import NVIDIA, TARGETS, Kernel, compiled
from checks import BF16, F16, F32, F64, assert_same, interpreted, random

import logsnr
from logsnr.kernels import STATE_DTYPES, Noise, combine
from logsnr.kernels.tensors import accumulation_dtype
from logsnr.solvers.programs.lower import lower
from logsnr.solvers.programs.program import Call, Program
from logsnr.solvers.runs.run import NonFiniteError, run

SCH = logsnr.VPLinear()
UNIT = {dtype: torch.finfo(dtype).eps / 2 for dtype in STATE_DTYPES} | {BF16: 2.0**-8}  # interpreted bf16 is cut off


def matrix(rows: int, columns: int, *event: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns, *event))


@interpreted
@pytest.mark.parametrize("size", [0, 1, 7, 1023, 4097])
@pytest.mark.parametrize(("read", "written"), list(itertools.product(STATE_DTYPES, repeat=2)))
def test_dtypes_and_sizes(read: torch.dtype, written: torch.dtype, size: int) -> None:
    """Every element of NaN-poisoned outputs is written, as the reference writes it, within the rounding of a float64
    sum."""
    inputs = [random((size,), read, seed) for seed in range(3)]
    out = [torch.full((size,), float("nan"), dtype=written) for _ in range(2)]
    coefs = matrix(2, 3)
    found, bad = combine(inputs, coefs, out=out, checked=3, backend="triton")
    wanted, _ = combine(inputs, coefs, dtypes=[written] * 2, backend="torch")
    assert not bad
    wide = UNIT[accumulation_dtype([written])]
    for y, other, row in zip(found, wanted, coefs, strict=True):
        assert_same(y, other, "triton")
        terms = [c * x.double() for c, x in zip(row, inputs, strict=True)]
        exact, scale = sum(terms), sum(t.abs() for t in terms)
        tiny = torch.finfo(written).tiny * torch.finfo(written).eps
        assert ((y.double() - exact).abs() <= 6 * wide * scale + 2 * UNIT[written] * exact.abs() + tiny).all()


@interpreted
def test_everything_at_once() -> None:
    """Mixed dtypes, coefficients by element, columns of zeros, noise and in-place outputs agree with the
    compiled CPU code."""
    inputs = [random((3, 5, 7), d, seed) for seed, d in enumerate((F16, F32, F64, BF16))]
    noise = Noise(torch.arange(3) + (1 << 40), torch.arange(3), ((2, 0), (7, 1)))
    for coefs in (matrix(3, 6), matrix(3, 6, 5, 1), matrix(3, 6, 5, 7)):
        coefs[0, 1] = coefs[1, 0] = coefs[1, 4] = 0
        options = {"noise": noise, "checked": 2}
        inputs[0][0, 0, 0] = float("nan")  # left out of row 1
        found, bad = combine(inputs, coefs, dtypes=[F32, F64, F16], backend="triton", **options)  # type: ignore[arg-type]
        wanted, _ = combine(inputs, coefs, dtypes=[F32, F64, F16], backend="cpu", **options)  # type: ignore[arg-type]
        assert bad
        for y, other in zip(found, wanted, strict=True):
            assert_same(y, other, "triton")
        x = inputs[1].clone()
        combine([inputs[2], x], coefs[:1, :2], out=[x], backend="triton")
        assert_same(x, combine(inputs[2:0:-1], coefs[:1, :2], dtypes=[F32], backend="cpu")[0][0])


@interpreted
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_flag(value: float) -> None:
    """The flag tells of checked inputs only, wherever the value is."""
    for place in (0, 1023, 1024, 2999):
        x, y = random((3000,)), random((3000,))
        x[place] = value
        assert combine([x, y], matrix(1, 2), checked=1, backend="triton")[1]
        assert not combine([y, x], matrix(1, 2), checked=1, backend="triton")[1]


@interpreted
@pytest.mark.parametrize(("state", "model"), [(F32, F32), (F64, F32), (F32, F16)])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp-3m", "dpmpp-3s"])
def test_runs(solver: str, state: torch.dtype, model: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole runs, with a model input in half precision too, give the bits of compiled CPU code; the start is not
    touched, and answers of other layouts and dtypes are taken."""
    x = random((2, 3, 4, 5), state)
    kept = x.clone()

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x.movedim(1, -1)).movedim(-1, 1).to(model)

    den = logsnr.Denoiser(net, SCH, dtype=model)
    ends = []
    for backend in ("triton", "cpu"):
        monkeypatch.setenv("LOGSNR_BACKEND", backend)
        ends.append(logsnr.sample(den, x, solver=solver, steps=5))
    assert torch.equal(*ends)
    assert torch.equal(x, kept)


@interpreted
def test_coefficients_by_element_and_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with coefficients by element and noise runs as on the CPU."""
    grid = (1.0, 0.6, 0.3)
    calls = tuple(
        Call(s, (0,), (0,), matrix(1, 4, 3, 1) / 4, noises=((s, t),), node=n + 1)
        for n, (s, t) in enumerate(itertools.pairwise(grid))
    )
    low = lower(Program("by element", 1, grid, calls), SCH, "x0", state=F32, model=F32)
    x, ends = random((2, 3, 4)), []
    for backend in ("triton", "cpu", "torch"):
        monkeypatch.setenv("LOGSNR_BACKEND", backend)
        noise = lambda key, like: torch.full_like(like, key[1])  # noqa: E731
        ends.append(run(low, logsnr.Denoiser(lambda x, t: torch.tanh(x), SCH, "x0"), x, noise=noise)[0])
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


@interpreted
def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer that was not finite is named, after the run; what Triton cannot serve is refused, and auto
    takes compiled code for tensors on the CPU."""
    monkeypatch.setenv("LOGSNR_BACKEND", "triton")
    answers = iter([1.0, float("nan"), 1.0, float("inf")])
    den = logsnr.Denoiser(lambda x, t: torch.full_like(x, next(answers)), SCH)
    with pytest.raises(NonFiniteError, match="call 2 of 4"):
        logsnr.sample(den, torch.ones(2, 3), solver="ddim", steps=4)
    with pytest.raises(RuntimeError, match="LOGSNR_BACKEND = 'triton' cannot serve"):
        combine([torch.ones(4, 4).T, torch.ones(4, 4)], matrix(1, 2))


@cache
def kernels() -> dict[tuple[str, str], Kernel]:
    return compiled("combine")


WIDTH = {"fp32": 2, "fp16": 1, "bf16": 1, "fp64": 4}  # 128-bit accesses of a thread, for 8 elements


@pytest.mark.parametrize("target", TARGETS)
def test_compiled_code_keeps_everything_in_registers(target: str) -> None:
    """On every GPU nothing spills, at most 64 registers are taken (72 in fp64), and no sum is fused unless asked, but
    those that normals are specified with."""
    for (where, case), kernel in kernels().items():
        if where == target:
            assert kernel.spilled == 0, case
            assert kernel.registers <= (72 if case == "fp64" else 64), case
            specified = kernel.specified if case == "noise" else 0
            assert (kernel.fused != specified) == (case == "fused"), case


@pytest.mark.parametrize("target", NVIDIA)
def test_every_operand_is_moved_once(target: str) -> None:
    """Three inputs are read and two outputs written, 128 bits at a time and once; beside them there are only the
    coefficients in use, the flag, and what noise needs. Coefficients by element are read as inputs are."""
    for case, width in WIDTH.items():
        kernel = kernels()[target, case]
        assert kernel.accesses == (3 * width, 2 * width), case
        assert kernel.narrow == (5, 1), case
    kernel = kernels()[target, "noise"]  # 2 coefficients, seed, sample, interval, stream
    assert (kernel.accesses, kernel.narrow) == ((6, 4), (5 + 6, 1))
    assert kernels()[target, "by element"].accesses == (6 + 10, 4)
    assert kernels()[target, "by element"].narrow == (0, 1)
