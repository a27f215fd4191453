"""`combine`: the one operation of the solvers, ``out[r] = sum_j coefs[r, j] * inputs[j]`` in one pass.

`execute.combine_reference` is the specification.
"""

from collections.abc import Sequence

import numpy as np
import torch

from .backends import Backend
from .combine_op import traced
from .execute import copied, execute
from .normals import Noise
from .table import Table, check_event, table
from .tensors import STATE_DTYPES, functional

MAX_INPUTS = 80  # a fitted table reads all its answers
MAX_OUTPUTS = 3


def combine(
    inputs: Sequence[torch.Tensor],
    coefs: torch.Tensor | np.ndarray | Table,
    *,
    dtypes: Sequence[torch.dtype] | None = None,
    out: Sequence[torch.Tensor] | None = None,
    checked: int = 0,
    noise: Noise | None = None,
    backend: Backend | None = None,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Linear combinations of ``inputs``, every input read once and every output written once.

    inputs:  1 to 80 floating tensors of one shape and device, of any mix of fp64, fp32, fp16 and bf16.
    coefs:   (R, K) for R = 1 to 3 outputs of K inputs, or (R, K, *event) with an ``event`` that broadcasts
             against ``shape[1:]``: per-channel or per-element coefficients. Rounded to the accumulation dtype
             (fp64 if an output is, else fp32), as the inputs are; sums are taken in that dtype, left to right,
             products and sums rounded separately, and the result is rounded once (from fp64 to fp16 and bf16
             by way of fp32, as torch rounds). An input whose coefficient is 0 is left out of the sum, whatever
             it holds (of per-element coefficients: if all are 0). A `Table` is prepared once, for many calls.
    dtypes:  of the outputs; by default that of the first input.
    out:     tensors to write to, in place of new ones, and then instead of ``dtypes``; an output may be one of
             the inputs.
    checked: the first ``checked`` inputs are tested for infinities and NaNs in the same pass, as they are in
             the accumulation dtype.
    noise:   standard normals that enter as more inputs, after the others: K counts them too. They are made in
             the same pass and never stored; `normals` says which they are.
    backend: "torch", "cpu" (compiled) or "triton"; by default the environment variable LOGSNR_BACKEND, or else
             the fastest that can serve these tensors.

    Under torch.compile, and where autograd records, this is one operator, ``torch.ops.logsnr.combine``, with its
    own backward; torch.func transforms and forward-mode AD go through the reference, so only vmap and backward can
    be part of a compiled graph. Coefficients are constants.

    Returns the outputs and a bool tensor: whether a checked input was not finite (never read here, so that
    a GPU need not stop).
    Raises ValueError for shapes, devices, counts and dtypes that do not fit, and RuntimeError if the backend
    asked for cannot serve these tensors, with the reason.
    """
    # Under torch.compile coefficients stay a tensor: their values are looked at when the operator runs.
    prepared = _tensor(coefs) if torch.compiler.is_compiling() else table(coefs)
    columns = len(inputs) + (len(noise.columns) if noise else 0)
    kinds = _check(inputs, prepared.shape, columns, dtypes, out)
    if not 0 <= checked <= len(inputs):
        raise ValueError(f"checked must be from 0 to {len(inputs)}, the number of inputs, not {checked}")
    if noise is not None:
        noise.check(inputs[0])
    if isinstance(prepared, torch.Tensor):
        results, bad = traced(inputs, prepared, kinds, checked, noise, backend)
        return copied(results, out), bad
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    if recorded and backend is None and out is None and not functional():
        return traced(inputs, prepared.tensor, kinds, checked, noise, None)
    return execute(inputs, prepared, kinds, out, checked, noise, backend)


def _tensor(coefs: torch.Tensor | np.ndarray | Table) -> torch.Tensor:
    if isinstance(coefs, Table):
        return coefs.tensor
    return torch.as_tensor(coefs, dtype=torch.float64, device=getattr(coefs, "device", "cpu"))


def _check(
    inputs: Sequence[torch.Tensor],
    shape: Sequence[int],
    columns: int,
    dtypes: Sequence[torch.dtype] | None,
    out: Sequence[torch.Tensor] | None,
) -> tuple[torch.dtype, ...]:
    """The dtypes of the outputs; TypeError or ValueError, by name, for what does not fit coefficients of a shape."""
    named = {f"inputs[{j}]": x for j, x in enumerate(inputs)} | {f"out[{j}]": x for j, x in enumerate(out or ())}
    for name, x in named.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(x).__name__}")
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise ValueError(f"inputs must be 1 to {MAX_INPUTS} tensors, not {len(inputs)}")
    if len(shape) < 2 or shape[1] != columns or not 1 <= shape[0] <= MAX_OUTPUTS:
        raise ValueError(f"coefs must have shape (R, {columns}) with R from 1 to {MAX_OUTPUTS}, not {(*shape,)}")
    check_event(shape[2:], inputs[0].shape[1:])
    if out is not None and dtypes is not None:
        raise ValueError("give out or dtypes, not both: out has its own dtypes")
    kinds = [o.dtype for o in out] if out is not None else dtypes or [inputs[0].dtype] * shape[0]
    if len(kinds) != shape[0]:
        raise ValueError(f"coefs has {shape[0]} rows, but {len(kinds)} outputs are given")
    like, device = inputs[0].shape, inputs[0].device
    for name, x in named.items():
        if x.shape != like or x.device != device:
            raise ValueError(
                f"{name} must have the shape and device of inputs[0], {tuple(like)} on {device}, "
                f"not {tuple(x.shape)} on {x.device}"
            )
    for name, dtype in [*((name, x.dtype) for name, x in named.items()), *(("dtypes", d) for d in kinds)]:
        if dtype not in STATE_DTYPES:
            raise ValueError(f"{name} must be fp64, fp32, fp16 or bf16, not {dtype}")
    return tuple(kinds)
