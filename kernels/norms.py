"""`combine_norm`: the outputs of `combine` and, in the same pass, how large an error estimate is in every sample.

`combine_norm_reference` is the specification.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .backends import Backend, choose
from .combine import MAX_INPUTS, MAX_OUTPUTS
from .sums import sum_squares, weighted_sum
from .tensors import STATE_DTYPES, accumulation_dtype, cpu_refuses, elements, overlap, scattered, triton_refuses


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
    table = np.asarray(coefs.detach().cpu() if isinstance(coefs, torch.Tensor) else coefs, dtype=np.float64)
    kinds = _check(inputs, table, dtypes, out)
    rows = np.concatenate([_weights("error", [error], 1, len(inputs)), _weights("scale", scale, 2, len(inputs))])
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
        return combine_norm_reference(inputs, table, rows, rtol, atol, kinds, wide, out=out)
    results = tuple(out) if out is not None else tuple(torch.empty_like(inputs[0], dtype=d) for d in kinds)
    matrix = np.concatenate([table, rows]).astype(_numpy(wide))
    tolerances = np.array([rtol, atol], dtype=_numpy(wide))
    if asked == "cpu":
        from .norms_cpu import norms_cpu as norms  # loads the compiler
    else:
        from .norms_triton import norms_triton as norms  # loads Triton
    return results, norms(inputs, results, matrix, tolerances)


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
    coefs: np.ndarray,
    rows: np.ndarray,
    rtol: float,
    atol: float,
    dtypes: Sequence[torch.dtype],
    wide: torch.dtype,
    *,
    out: Sequence[torch.Tensor] | None = None,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The specification, in plain torch: differentiable, and on any device that has fp64."""
    terms = [x.to(wide) for x in inputs]
    *sums, e, a, b = (weighted_sum(row, terms) for row in np.concatenate([coefs, rows]).astype(_numpy(wide)).tolist())
    relative, absolute = (float(_numpy(wide)(tol)) for tol in (rtol, atol))
    size = absolute + relative * torch.maximum(a.abs(), b.abs())
    # The second term is 0, or NaN where the scale is infinite and would hide an error of any size.
    ratio = e / size + (size - size)
    count = elements(ratio)
    norms = torch.sqrt(sum_squares(ratio.double().reshape(len(ratio), count)) / max(count, 1))
    results = tuple(total.to(dtype) for total, dtype in zip(sums, dtypes, strict=True))
    if out is not None:  # last, as an output may be an input
        for target, result in zip(out, results, strict=True):
            target.copy_(result)
        results = tuple(out)
    return results, norms


def _weights(name: str, rows: Any, count: int, columns: int) -> np.ndarray:
    weights = np.array(rows, dtype=np.float64)
    if weights.shape != (count, columns) or not np.isfinite(weights).all():
        raise ValueError(f"{name} must be {count} row(s) of {columns} finite weights, one for every input, not {rows}")
    return weights


def _numpy(wide: torch.dtype) -> Any:
    return np.float64 if wide is torch.float64 else np.float32


def _check(
    inputs: Sequence[torch.Tensor],
    coefs: np.ndarray,
    dtypes: Sequence[torch.dtype] | None,
    out: Sequence[torch.Tensor] | None,
) -> tuple[torch.dtype, ...]:
    """The dtypes of the outputs; ValueError for what does not fit."""
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise ValueError(f"inputs must be 1 to {MAX_INPUTS} tensors, not {len(inputs)}")
    if coefs.ndim != 2 or coefs.shape[1] != len(inputs) or coefs.shape[0] > MAX_OUTPUTS:
        raise ValueError(f"coefs must have shape (R, {len(inputs)}) with R from 0 to {MAX_OUTPUTS}, not {coefs.shape}")
    if out is not None and dtypes is not None:
        raise ValueError("give out or dtypes, not both: out has its own dtypes")
    kinds = [o.dtype for o in out] if out is not None else dtypes or [inputs[0].dtype] * len(coefs)
    if len(kinds) != len(coefs):
        raise ValueError(f"coefs has {len(coefs)} rows, but {len(kinds)} outputs are given")
    first = inputs[0]
    if first.ndim == 0:
        raise ValueError("inputs must have a batch dimension, but they have no dimension")
    named = [(f"inputs[{j}]", x) for j, x in enumerate(inputs)] + [(f"out[{r}]", x) for r, x in enumerate(out or ())]
    for name, x in named:
        if x.shape != first.shape or x.device != first.device:
            raise ValueError(
                f"{name} must have the shape and device of inputs[0], {tuple(first.shape)} on {first.device}, "
                f"not {tuple(x.shape)} on {x.device}"
            )
    for name, dtype in [(name, x.dtype) for name, x in named] + [("dtypes", dtype) for dtype in kinds]:
        if dtype not in STATE_DTYPES:
            raise ValueError(f"{name} must be fp64, fp32, fp16 or bf16, not {dtype}")
    return tuple(kinds)
