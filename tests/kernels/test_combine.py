"""combine: compiled code equals the torch specification bit by bit, and both a float64 sum within
rounding."""

import numpy as np
import pytest
import torch

from logsnr.kernels import STATE_DTYPES, combine
from logsnr.kernels.tensors import accumulation_dtype

F64, F32, F16, BF16 = STATE_DTYPES
# Unit roundoff, and the spacing of the denormals where relative bounds end.
ROUNDING = {d: (torch.finfo(d).eps / 2, torch.finfo(d).smallest_normal * torch.finfo(d).eps) for d in STATE_DTYPES}


def random(shape: int | tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view({8: torch.int64, 4: torch.int32, 2: torch.int16}[x.element_size()])


def assert_equal(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal bits; NaNs need not have equal payloads."""
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(bits(found)[~found.isnan()], bits(wanted)[~wanted.isnan()])


def assert_sum(found: torch.Tensor, inputs: list[torch.Tensor], row: np.ndarray, wide: torch.dtype) -> None:
    """|found - exact| <= k eps_acc sum |c x| + eps_out |y|: coefficients, inputs and products rounded once
    each, k - 1 sums, and the final rounding."""
    terms = [c * x.double() for c, x in zip(row, inputs, strict=True)]
    exact, size = sum(terms), sum(t.abs() for t in terms)
    (u_acc, tiny_acc), (u_out, tiny_out) = ROUNDING[wide], ROUNDING[found.dtype]
    bound = (len(inputs) + 3) * u_acc * size + 1.01 * u_out * exact.abs() + tiny_out + 20 * tiny_acc
    assert ((found.double() - exact).abs() <= bound).all()


def assert_backends_agree(inputs: list[torch.Tensor], coefs: np.ndarray, dtypes: list[torch.dtype]) -> None:
    """Both backends write every element of poisoned outputs, equal in every bit, near the float64 sum."""
    out = [torch.full_like(inputs[0], float("nan"), dtype=d) for d in dtypes]
    results, bad = combine(inputs, coefs, out=out, checked=len(inputs), backend="cpu")
    wanted, bad_too = combine(inputs, coefs, dtypes=dtypes, checked=len(inputs), backend="torch")
    assert bool(bad) == bool(bad_too)
    assert all(a is b for a, b in zip(results, out, strict=True))
    for found, want, row in zip(results, wanted, coefs, strict=True):
        assert_equal(found, want)
        assert_sum(found, inputs, row, accumulation_dtype(dtypes))


SIZES = [0, 1, 7, 8, 9, 15, 17, 31, 32, 33, 1023, 1024, 1025, 4097]


@pytest.mark.parametrize("size", SIZES)
def test_dtypes_and_sizes(size: int) -> None:
    """Around every size of vectors and tiles compiled code equals torch bit for bit, for every dtype in or out, and
    over all sizes for every pair of them."""
    for k, read in enumerate(STATE_DTYPES):
        inputs = [random(size, read, 1), random(size, F32, 2)]
        assert_backends_agree(inputs, matrix(2, 2), [STATE_DTYPES[(k + SIZES.index(size)) % 4], F32])


@pytest.mark.parametrize(("count", "rows"), [(k, 1 + k % 3) for k in (*range(1, 13), 80)])
def test_counts(count: int, rows: int) -> None:
    """1 to 12 inputs, and as many as there can be, of mixed dtypes and 1 to 3 outputs of mixed dtypes."""
    inputs = [random((3, 129), STATE_DTYPES[(count + j) % 4], j) for j in range(count)]
    assert_backends_agree(inputs, matrix(rows, count), [STATE_DTYPES[(count + r) % 4] for r in range(rows)])


def test_every_rounding_of_half_precision() -> None:
    """Sums exactly at, just above and just below the midpoints of fp16 and bf16 round to even as torch does,
    from fp32 and from fp64; denormals, overflow and infinities included."""
    halves = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(F16)
    halves = halves[halves.isfinite()]
    gap = torch.nextafter(halves, torch.full_like(halves, float("inf"))).float() - halves.float()
    for dtype in (F16, BF16):
        for shift in (0.5, 0.5 + 2**-12, 0.5 - 2**-12):
            for other in (F32, F64):
                inputs = [halves.to(other), torch.nan_to_num(gap, 0, 0, 0).to(other)]
                found, want = (
                    combine(inputs, np.array([[1, shift], [1, 0]]), dtypes=[dtype, other], backend=b)[0]  # type: ignore[arg-type]
                    for b in ("cpu", "torch")
                )
                assert_equal(found[0], want[0])


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("dtype", STATE_DTYPES)
def test_nonfinite_flag(backend: str, dtype: torch.dtype) -> None:
    """inf, -inf and NaN anywhere in a checked input set the flag; denormals, the largest number, unchecked
    inputs and overflowing sums do not."""

    def flag(x: torch.Tensor, y: torch.Tensor, checked: int) -> bool:
        return bool(combine([x, y], np.array([[3.0, 1.0]]), checked=checked, backend=backend)[1])  # type: ignore[arg-type]

    fine = torch.zeros(77, dtype=dtype)
    fine[:4] = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min, ROUNDING[dtype][1], -0.0], dtype=F64)
    assert not flag(fine, fine, 2)
    for value in (float("inf"), float("-inf"), float("nan")):
        for where in (0, 15, 16, 31, 32, 63, 64, 76):
            x = fine.clone()
            x[where] = value
            assert flag(x, fine, 1)
            assert not flag(fine, x, 1)
            assert flag(fine, x, 2)
            assert not flag(x, x, 0)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_flag_is_of_the_inputs_as_they_were_and_in_the_sum(backend: str) -> None:
    """An output in place of a checked input does not change the flag; an fp64 value beyond fp32 sets it where
    the sums are fp32."""
    x = torch.full((5,), 3e38)
    results, bad = combine([x], np.array([[10.0]]), out=[x], checked=1, backend=backend)  # type: ignore[arg-type]
    assert results[0].isinf().all()
    assert not bad
    big = torch.full((5,), 1e300, dtype=F64)
    assert combine([big], np.array([[1.0]]), dtypes=[F32], checked=1, backend=backend)[1]  # type: ignore[arg-type]
    assert not combine([big], np.array([[1.0]]), checked=1, backend=backend)[1]  # type: ignore[arg-type]


@pytest.mark.parametrize("outputs", [(0,), (1, 0), (2, 1, 0)])
def test_in_place(outputs: tuple[int, ...]) -> None:
    """An output may be any of the inputs: all reads come before the writes."""
    inputs = [random(1000, F32, j) for j in range(3)]
    coefs = matrix(len(outputs), 3)
    want = combine([x.clone() for x in inputs], coefs, backend="torch")[0]
    found, _ = combine(inputs, coefs, out=[inputs[j] for j in outputs], backend="cpu")
    for a, b in zip(found, want, strict=True):
        assert_equal(a, b)


@pytest.mark.parametrize("dtype", STATE_DTYPES)
def test_misaligned_storage(dtype: torch.dtype) -> None:
    """Views that start at any element of a buffer need no more alignment than their elements."""
    for offset in (1, 3):
        x, y = random(100, dtype, 1)[offset:], random(100, dtype, 2)[offset:]
        out = torch.full((101,), float("nan"), dtype=dtype)
        combine([x, y], np.array([[0.3, 0.7]]), out=[out[offset : offset + len(x)]], backend="cpu")
        assert_equal(out[offset : offset + len(x)], combine([x, y], np.array([[0.3, 0.7]]), backend="torch")[0][0])
        assert out[:offset].isnan().all()
        assert out[offset + len(x) :].isnan().all()


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_inputs_with_coefficient_zero_are_left_out(backend: str) -> None:
    """0 times an infinity or a NaN is no part of a sum, and a row of zeros gives zeros."""
    x, poisoned = random(37, F32, 1), torch.full((37,), torch.inf)
    poisoned[::2] = torch.nan
    coefs = np.array([[0.5, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1e-60, 0.0]])  # 1e-60 is 0 in fp32
    (first, second, third), bad = combine([x, poisoned, x], coefs, checked=1, backend=backend)
    assert_equal(first, 1.5 * x)
    for zero in (second, third):
        assert_equal(zero, torch.zeros(37))  # not -0
    assert not bad
    for rows in ([0, 1], [1, 0], [0, 2], [0], [1]):
        for found, k in zip(combine([x, poisoned, x], coefs[rows], backend=backend)[0], rows, strict=True):
            assert_equal(found, (first, second, third)[k])


PATTERNS = [
    (0b111, 0b001),
    (0b111, 0b011),
    (0b011, 0b111),
    (0b111, 0b111),
    (0b101, 0b011),
    (0b110, 0b001),
    (0b110, 0b111),
]


@pytest.mark.parametrize("count", [3, 4, 5, 9])
@pytest.mark.parametrize("patterns", PATTERNS)
def test_rows_that_use_other_columns(patterns: tuple[int, int], count: int) -> None:
    """Two sums are taken side by side where one row's columns are the first of the other's, and else in turn; the
    outputs take the places of inputs. What is left out holds infinities."""
    coefs = matrix(2, count)
    for row, pattern in zip(coefs, patterns, strict=True):
        row[:3] *= [pattern & 1, pattern >> 1 & 1, pattern >> 2 & 1]
    for out in ((1, 2), (0, count - 1), (2, 0)):
        inputs = [random(2500, F32, j) for j in range(count)]
        for j in np.flatnonzero((coefs == 0).all(axis=0)):
            inputs[j][:] = torch.inf
        want, wanted = combine([x.clone() for x in inputs], coefs, checked=2, backend="torch")
        found, bad = combine(inputs, coefs, out=[inputs[j] for j in out], checked=2, backend="cpu")
        assert bool(bad) == bool(wanted)
        for a, b in zip(found, want, strict=True):
            assert_equal(a, b)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_sums_are_of_the_widest_dtype_of_the_outputs(backend: str) -> None:
    """Whichever output it is: 2^-30 is lost in fp32, and all sums of a call are fp64 if one output is."""
    inputs, row = [torch.ones(9), torch.full((9,), 2.0**-30), torch.ones(9)], [1.0, 1.0, -1.0]
    for dtypes in ([F32, F64], [F64, F32], [BF16, F16, F64]):
        for y in combine(inputs, np.array([row] * len(dtypes)), dtypes=dtypes, backend=backend)[0]:  # type: ignore[arg-type]
            assert (y == torch.tensor(2.0**-30).to(y.dtype)).all()
    assert not combine(inputs, np.array([row]), dtypes=[F32], backend=backend)[0][0].any()  # type: ignore[arg-type]


@pytest.mark.parametrize("again", [[0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]])
def test_a_sum_that_goes_to_several_outputs(again: list[int]) -> None:
    """Rows that are the same, in any dtypes, and where the first output is an input."""
    coefs, inputs = matrix(2, 3)[again], [random((3, 1500), F32, seed) for seed in range(3)]
    for dtypes in ([F32] * 3, [F32, F32, F16], [F16, F32, BF16], [F64, F32, F32]):
        kinds = dtypes[: len(again)]
        wanted, _ = combine(inputs, coefs, dtypes=kinds, backend="torch")
        out = [inputs[0].clone() if k == 0 and d is F32 else torch.empty_like(inputs[0], dtype=d)
               for k, d in enumerate(kinds)]  # fmt: skip
        first = out[0] if kinds[0] is F32 else inputs[0]
        combine([first, *inputs[1:]], coefs, out=out, backend="cpu")
        for a, b in zip(out, wanted, strict=True):
            assert_equal(a, b)


@pytest.mark.parametrize("checked", [0, 1, 2, 3])
@pytest.mark.parametrize("row", [[1.0, 2.0, 3.0], [0.0, 2.0, 3.0], [1.0, 0.0, 3.0], [0.0, 0.0, 3.0]])
def test_which_inputs_are_checked(checked: int, row: list[float]) -> None:
    """Whether they enter the sum or not."""
    for coefs in ([row], [row, [1.0, 2.0, 3.0]], [row, [0.5, 0.0, 1.0], row]):
        for j in range(3):
            inputs = [torch.ones(1, 1100) for _ in range(3)]
            inputs[j][0, 1050] = float("inf")
            _, bad = combine(inputs, np.array(coefs), checked=checked, backend="cpu")
            assert bool(bad) == (j < checked)
