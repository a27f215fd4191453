"""`combine_norm`: the outputs of `combine` and, in the same pass, how large an error estimate is in every sample.

`combine_norm_reference` is the specification.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .arguments import MAX_OUTPUTS, check_tensors, copied
from .backends import Backend, choose
from .sums import numbers, sum_squares, weighted_sum
from .table import float64, table
from .tensors import accumulation_dtype, cpu_refuses, elements, overlap, scattered, triton_refuses


def combine_norm(
    inputs: Sequence[torch.Tensor],
    coefs: torch.Tensor | np.ndarray,
    *,
    error: Sequence[float] | np.ndarray,
    scale: Sequence[Sequence[float]] | np.ndarray,
    rtol: float,
    atol: float,
    dtypes: Sequence[torch.dtype] | None = None,
    out: Sequence[torch.Tensor] | None = None,
    backend: Backend | None = None,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Linear combinations of ``inputs`` as `combine` makes them, and for every sample

        norm = sqrt(mean((e / (atol + rtol max(|a|, |b|)))^2))

    over its elements, where e, a and b are linear combinations too, kept in registers: every input is read
    once, every output written once, and nothing else of the size of a state is. It is the norm by which Hairer,
    Norsett & Wanner (Solving ODEs I, eq. II.4.11) control the step; 1 means that the error is what is allowed.

    inputs:  1 to 12 floating tensors of one shape (B, ...) and device, of any mix of fp64, fp32, fp16 and bf16.
    coefs:   (R, K) for R = 0 to 3 outputs of K inputs.
    error:   (K,), the weights of e.
    scale:   (2, K), the weights of a and b: the old and the new state, say.
    rtol:    not negative. atol: positive, and not denormal in the accumulation dtype, so that no element divides
             by 0. Both are rounded to that dtype.
    dtypes:  of the outputs; by default that of the first input.
    out:     tensors to write to, in place of new ones, and then instead of ``dtypes``; an output may be one of
             the inputs.
    backend: "torch", "cpu" (compiled) or "triton"; by default LOGSNR_BACKEND, or the fastest that serves these.

    The accumulation dtype is fp64 if an output is fp64 (if there is none: an input), else fp32. Outputs, e, a, b,
    the scale and the quotient are rounded to it as in `combine`; the quotients are squared and summed in fp64, in
    an order that depends on nothing but the number of elements in a sample: a sample has the same norm, to the
    last bit, in any batch and with any number of threads. Torch and compiled CPU code return the same bits for
    contiguous tensors; for other layouts, and with Triton, the order is another fixed one, and the norms agree to
    1e-14. Where u is the unit roundoff of the accumulation dtype, the norm is, to first order, within

        (K + 8) u sqrt(mean(((E + |e| S / s) / s)^2))  +  1e-14 norm

    of the exact one, with E = sum_j |error_j x_j|, s the scale, and S the scale with |a| and |b| replaced by sums
    of absolute values, as in E: only cancellation within e, a or b makes it worse than rounding.

    Returns the outputs, and the norms: (B,), fp64. The norm of a sample in which an element of e, a or b is not
    finite is not finite, and no other is touched. A sample without elements has norm 0.
    Raises ValueError for shapes, devices, counts, dtypes and tolerances that do not fit, and RuntimeError if the
    backend asked for cannot serve these tensors, with the reason.
    """
    given = float64(coefs)
    kinds = _check(inputs, given, dtypes, out)
    rows = [_weights("error", [error], 1, len(inputs)), _weights("scale", scale, 2, len(inputs))]
    matrix = np.concatenate([given, *rows])
    wide = accumulation_dtype(kinds or [x.dtype for x in inputs])
    if not (rtol >= 0 and np.isfinite(rtol)):
        raise ValueError(f"rtol must be finite and not negative, not {rtol}")
    if not torch.finfo(wide).smallest_normal <= atol < np.inf:
        raise ValueError(f"atol must be positive, and a normal number in {wide}, not {atol}")
    tensors = [*inputs, *(out or ())]

    def unfit() -> str | None:
        return scattered(inputs[0]) or overlap(inputs, out or ())

    asked = choose(
        backend,
        inputs[0].device,
        {"cpu": lambda: cpu_refuses(tensors) or unfit(), "triton": lambda: triton_refuses(tensors) or unfit()},
    )
    if asked == "torch":
        return combine_norm_reference(inputs, matrix, rtol, atol, kinds, wide, out=out)
    results = tuple(out) if out is not None else tuple(torch.empty_like(inputs[0], dtype=d) for d in kinds)
    if asked == "cpu":
        from .norms_cpu import norms_cpu as norms  # loads the compiler
    else:
        from .norms_triton import norms_triton as norms  # loads Triton
    return results, norms(inputs, results, table(matrix), (rtol, atol), wide)


def error_norm(
    inputs: Sequence[torch.Tensor],
    *,
    error: Sequence[float] | np.ndarray,
    scale: Sequence[Sequence[float]] | np.ndarray,
    rtol: float,
    atol: float,
    backend: Backend | None = None,
) -> torch.Tensor:
    """The norms (B,) of `combine_norm`, without outputs."""
    none = np.empty((0, len(inputs)))
    return combine_norm(inputs, none, error=error, scale=scale, rtol=rtol, atol=atol, backend=backend)[1]


def combine_norm_reference(
    inputs: Sequence[torch.Tensor],
    weights: np.ndarray,
    rtol: float,
    atol: float,
    dtypes: Sequence[torch.dtype],
    wide: torch.dtype,
    *,
    out: Sequence[torch.Tensor] | None = None,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The specification, in plain torch: differentiable, and on any device that has fp64. ``weights`` has a row for
    every output, then those of e, a and b."""
    terms = [x.to(wide) for x in inputs]
    *sums, e, a, b = (weighted_sum(row, terms) for row in numbers(weights, wide))
    relative, absolute = numbers([rtol, atol], wide)
    size = absolute + relative * torch.maximum(a.abs(), b.abs())
    # The second term is 0, or NaN where the scale is infinite and would hide an error of any size.
    ratio = e / size + (size - size)
    count = elements(ratio)
    norms = torch.sqrt(sum_squares(ratio.double().reshape(len(ratio), count)) / max(count, 1))
    results = tuple(total.to(dtype) for total, dtype in zip(sums, dtypes, strict=True))
    return copied(results, out), norms


def _weights(name: str, rows: Any, count: int, columns: int) -> np.ndarray:
    weights = np.array(rows, dtype=np.float64)
    if weights.shape != (count, columns) or not np.isfinite(weights).all():
        raise ValueError(f"{name} must be {count} row(s) of {columns} finite weights, one for every input, not {rows}")
    return weights


def _check(
    inputs: Sequence[torch.Tensor],
    coefs: np.ndarray,
    dtypes: Sequence[torch.dtype] | None,
    out: Sequence[torch.Tensor] | None,
) -> tuple[torch.dtype, ...]:
    """The dtypes of the outputs; ValueError for what does not fit."""
    kinds = check_tensors(inputs, len(coefs) if coefs.ndim else 0, dtypes, out)
    if coefs.ndim != 2 or coefs.shape[1] != len(inputs) or coefs.shape[0] > MAX_OUTPUTS:
        raise ValueError(f"coefs must have shape (R, {len(inputs)}) with R from 0 to {MAX_OUTPUTS}, not {coefs.shape}")
    if inputs[0].ndim == 0:
        raise ValueError("inputs must have a batch dimension, but they have no dimension")
    return kinds
