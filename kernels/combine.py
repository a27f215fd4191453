"""`combine`: the one operation of the solvers, ``out[r] = sum_j coefs[r, j] * inputs[j]`` in one pass.

`combine_reference` is the specification.
"""

import math
from array import array
from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch

from .backends import Backend, choose
from .normals import Noise, normals
from .pool import launch
from .tensors import STATE_DTYPES, accumulation_dtype, cpu_refuses, overlap

MAX_INPUTS = 12
MAX_OUTPUTS = 3


def combine(
    inputs: Sequence[torch.Tensor],
    coefs: torch.Tensor | np.ndarray,
    *,
    dtypes: Sequence[torch.dtype] | None = None,
    out: Sequence[torch.Tensor] | None = None,
    checked: int = 0,
    noise: Noise | None = None,
    limits: Sequence[float | None] | None = None,
    backend: Backend | None = None,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Linear combinations of ``inputs``, every input read once and every output written once.

    inputs:  1 to 12 floating tensors of one shape and device, of any mix of fp64, fp32, fp16 and bf16.
    coefs:   (R, K) for R = 1 to 3 outputs of K inputs, or (R, K, *event) with an ``event`` that broadcasts
             against ``shape[1:]``: per-channel or per-element coefficients. Rounded to the accumulation dtype
             (fp64 if an output is, else fp32), as the inputs are; sums are taken in that dtype, left to right,
             products and sums rounded separately, and the result is rounded once (from fp64 to fp16 and bf16
             by way of fp32, as torch rounds). An input whose coefficient is 0 is left out of the sum, whatever
             it holds (of per-element coefficients: if all are 0).
    dtypes:  of the outputs; by default that of the first input.
    out:     tensors to write to, in place of new ones, and then instead of ``dtypes``; an output may be one of
             the inputs.
    checked: the first ``checked`` inputs are tested for infinities and NaNs in the same pass, as they are in
             the accumulation dtype.
    noise:   standard normals that enter as more inputs, after the others: K counts them too. They are made in
             the same pass and never stored; `normals` says which they are.
    limits:  by output, None or the bound L >= 0 to which its sum is clamped, into [-L, L], before it is rounded;
             NaN stays NaN.
    backend: "torch", "cpu" (compiled); by default the environment variable LOGSNR_BACKEND, or else
             the fastest that can serve these tensors.

    Returns the outputs and a bool tensor: whether a checked input was not finite (never read here, so that
    a GPU need not stop).
    Raises ValueError for shapes, devices, counts and dtypes that do not fit, and RuntimeError if the backend
    asked for cannot serve these tensors, with the reason.
    """
    table = np.asarray(coefs.detach().cpu() if isinstance(coefs, torch.Tensor) else coefs, dtype=np.float64)
    columns = len(inputs) + (len(noise.columns) if noise else 0)
    kinds = _check(inputs, table, columns, dtypes, out)
    if noise is not None:
        noise.check(inputs[0])
    bounds = _bounds(limits, len(table))
    tensors, contiguous = [*inputs, *(out or ())], noise is not None or table.ndim > 2
    refusal = {"cpu": lambda: cpu_refuses(tensors, contiguous=contiguous) or overlap(inputs, out or ())}
    if choose(backend, refusal) == "torch":
        return combine_reference(inputs, table, kinds, out=out, checked=checked, noise=noise, limits=bounds)
    results = tuple(out) if out is not None else tuple(torch.empty_like(inputs[0], dtype=d) for d in kinds)
    matrix = in_accumulation_dtype(by_element(table, inputs[0].shape[1:]), kinds)
    return results, _combine_cpu(inputs, matrix, results, checked, noise, bounds)


def combine_reference(
    inputs: Sequence[torch.Tensor],
    coefs: np.ndarray,
    dtypes: Sequence[torch.dtype],
    *,
    out: Sequence[torch.Tensor] | None = None,
    checked: int = 0,
    noise: Noise | None = None,
    limits: Sequence[float] | None = None,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The specification, in plain torch: differentiable, and on any device."""
    wide, device = accumulation_dtype(dtypes), inputs[0].device
    terms = [x.to(wide) for x in inputs]
    columns = list(terms)
    if noise is not None:
        columns += [standard_normals(noise, k, inputs[0]).to(wide) for k in range(len(noise.columns))]
    matrix = in_accumulation_dtype(coefs, dtypes)
    rows = torch.from_numpy(matrix)
    # Python floats carry scalars to any device without a copy; fp32 values survive the trip exactly.
    weights = rows.tolist() if coefs.ndim == 2 else rows.to(device)
    sums = []
    for row, used in zip(weights, used_columns(matrix), strict=True):
        products = [weight * term for weight, term, use in zip(row, columns, used, strict=True) if use]
        sums.append(reduce(torch.add, products) if products else torch.zeros_like(terms[0]))
    if limits is not None:
        bounds = np.array(limits, dtype=matrix.dtype).tolist()
        sums = [
            total if bound == np.inf else total.clamp(-bound, bound) for total, bound in zip(sums, bounds, strict=True)
        ]
    results = tuple(total.to(dtype) for total, dtype in zip(sums, dtypes, strict=True))
    bad = torch.zeros((), dtype=torch.bool, device=device)
    for term in terms[:checked]:
        bad = bad | ~torch.isfinite(term).all()
    if out is not None:  # last, as an output may be an input
        for target, result in zip(out, results, strict=True):
            target.copy_(result)
        results = tuple(out)
    return results, bad


def standard_normals(noise: Noise, column: int, like: torch.Tensor) -> torch.Tensor:
    """One column of noise as a tensor of ``like``'s shape, fp32: compiled on a CPU, where torch takes 200 times as
    long."""
    z = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    if z.device.type == "cpu" and cpu_refuses([z]) is None:
        one = Noise(noise.seeds, noise.samples, noise.columns[column : column + 1])
        _combine_cpu([], np.ones((1, 1), dtype=np.float32), [z], 0, one, None)
        return z
    interval, stream = noise.columns[column]
    values = normals(noise.seeds, noise.samples, interval, elements(like), stream=stream, device=like.device)
    return values.reshape(like.shape)


def in_accumulation_dtype(coefs: np.ndarray, outputs: Sequence[torch.dtype]) -> np.ndarray:
    """The coefficients in the dtype in which the sums are taken: a contiguous copy, as compiled code reads it."""
    wide = np.float64 if accumulation_dtype(outputs) is torch.float64 else np.float32
    return np.array(coefs, dtype=wide, order="C")


def used_columns(coefs: np.ndarray) -> tuple[tuple[bool, ...], ...]:
    """By output, which columns enter its sum."""
    return tuple(map(tuple, (coefs != 0).reshape(*coefs.shape[:2], -1).any(axis=2).tolist()))


def by_element(coefs: np.ndarray, event: Sequence[int]) -> np.ndarray:
    """(R, K) as it is, (R, K, *broadcastable) as (R, K, elements of the event)."""
    if coefs.ndim == 2:
        return coefs
    missing = (1,) * (len(event) - (coefs.ndim - 2))
    spread = coefs.reshape(*coefs.shape[:2], *missing, *coefs.shape[2:])
    return np.broadcast_to(spread, (*coefs.shape[:2], *event)).reshape(*coefs.shape[:2], -1)


def _combine_cpu(
    inputs: Sequence[torch.Tensor],
    matrix: np.ndarray,
    results: Sequence[torch.Tensor],
    checked: int,
    noise: Noise | None,
    limits: Sequence[float] | None,
) -> torch.Tensor:
    from .combine_cpu import kernel, signature  # loads the compiler

    tensors = (*inputs, *results)
    clamped = None if limits is None else [bound != np.inf for bound in limits]
    sig = signature([x.dtype for x in inputs], [x.dtype for x in results], matrix, checked, clamped)
    bounds = np.array([np.inf] * len(results) if limits is None else limits, dtype=matrix.dtype)
    count, period = results[0].numel(), elements(results[0])
    frame = array("q", [x.data_ptr() for x in tensors])
    row = array("q", [matrix.ctypes.data, bounds.ctypes.data, *range(len(tensors))])
    if sig.by_sample:
        frame.extend([period, *((noise.seeds.data_ptr(), noise.samples.data_ptr()) if noise else (0, 0))])
        row.extend([len(tensors), *(word for column in (noise.columns if noise else ()) for word in column)])
    bad = launch(
        kernel(sig), frame.buffer_info()[0], row.buffer_info()[0], count, sum(x.element_size() for x in tensors),
        period=period if sig.by_sample else None,
    )  # fmt: skip
    return torch.tensor(bool(bad))


def elements(x: torch.Tensor) -> int:
    """In one sample of a batch (B, ...)."""
    return math.prod(x.shape[1:])


def _bounds(limits: Sequence[float | None] | None, outputs: int) -> tuple[float, ...] | None:
    if limits is None or all(bound is None for bound in limits):
        return None
    if len(limits) != outputs:
        raise ValueError(f"limits must have an entry for each of the {outputs} outputs, not {len(limits)}")
    bounds = tuple(np.inf if bound is None else float(bound) for bound in limits)
    if not all(bound >= 0 for bound in bounds):
        raise ValueError(f"limits must be None or at least 0, not {tuple(limits)}")
    return bounds


def _check(
    inputs: Sequence[torch.Tensor],
    coefs: np.ndarray,
    columns: int,
    dtypes: Sequence[torch.dtype] | None,
    out: Sequence[torch.Tensor] | None,
) -> tuple[torch.dtype, ...]:
    """The dtypes of the outputs; ValueError for what does not fit."""
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise ValueError(f"combine takes 1 to {MAX_INPUTS} inputs, not {len(inputs)}")
    if coefs.ndim < 2 or coefs.shape[1] != columns or not 1 <= coefs.shape[0] <= MAX_OUTPUTS:
        raise ValueError(f"coefs must have shape (R, {columns}) with R from 1 to {MAX_OUTPUTS}, not {coefs.shape}")
    if out is not None and dtypes is not None:
        raise ValueError("give out or dtypes, not both: out has its own dtypes")
    kinds = [o.dtype for o in out] if out is not None else dtypes or [inputs[0].dtype] * len(coefs)
    if len(kinds) != len(coefs):
        raise ValueError(f"coefs has {len(coefs)} rows, but {len(kinds)} outputs are given")
    first = inputs[0]
    for x in (*inputs, *(out or ())):
        if x.shape != first.shape or x.device != first.device:
            raise ValueError(
                f"all tensors must have the shape and device of the first, {tuple(first.shape)} on {first.device}; "
                f"one has {tuple(x.shape)} on {x.device}"
            )
    for dtype in (*(x.dtype for x in inputs), *kinds):
        if dtype not in STATE_DTYPES:
            raise ValueError(f"combine needs fp64, fp32, fp16 or bf16 tensors, not {dtype}")
    event, sizes = coefs.shape[2:], first.shape[1:]
    if len(event) > len(sizes) or any(e not in (1, n) for e, n in zip(event[::-1], sizes[::-1], strict=False)):
        raise ValueError(f"per-element coefs of shape {event} do not broadcast against {tuple(sizes)}")
    return tuple(kinds)
