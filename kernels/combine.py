"""`combine`: the one operation of the solvers, ``out[r] = sum_j coefs[r, j] * inputs[j]`` in one pass.

`combine_reference` is the specification. `backend_for` is the only place that chooses an implementation.
"""

import platform
from array import array
from collections.abc import Sequence
from functools import cache, reduce
from typing import Literal

import numpy as np
import torch

from .pool import launch

Backend = Literal["torch", "cpu"]

MAX_INPUTS = 12
MAX_OUTPUTS = 3
# Sums are taken in fp32 at least, and rounded once to the dtype of the output.
STATE_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def accumulation_dtype(outputs: Sequence[torch.dtype]) -> torch.dtype:
    """fp64 if an output is fp64, else fp32."""
    return torch.float64 if torch.float64 in outputs else torch.float32


def in_accumulation_dtype(coefs: np.ndarray, outputs: Sequence[torch.dtype]) -> np.ndarray:
    """The coefficients in the dtype in which the sums are taken: a contiguous copy, as compiled code reads it."""
    wide = np.float64 if accumulation_dtype(outputs) is torch.float64 else np.float32
    return np.array(coefs, dtype=wide, order="C")


def combine(
    inputs: Sequence[torch.Tensor],
    coefs: torch.Tensor | np.ndarray,
    *,
    dtypes: Sequence[torch.dtype] | None = None,
    out: Sequence[torch.Tensor] | None = None,
    checked: int = 0,
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
    backend: "torch" or "cpu" (compiled); by default the fastest that can serve these tensors.

    Returns the outputs and a bool tensor: whether a checked input was not finite (never read here, so that
    a GPU need not stop).
    Raises ValueError for shapes, devices, counts and dtypes that do not fit, and RuntimeError if the backend
    asked for cannot serve these tensors, with the reason.
    """
    table = np.asarray(coefs.detach().cpu() if isinstance(coefs, torch.Tensor) else coefs, dtype=np.float64)
    kinds = _check(inputs, table, dtypes, out)
    if backend not in (None, "torch", "cpu"):
        raise ValueError(f"backend must be 'torch' or 'cpu', not {backend!r}")
    refusal = cpu_refuses([*inputs, *(out or ())], table) or _overlap(inputs, out or ())
    if backend == "cpu" and refusal:
        raise RuntimeError(f"backend 'cpu' cannot serve this call: {refusal}")
    if backend == "torch" or refusal:
        return combine_reference(inputs, table, kinds, out=out, checked=checked)
    return _combine_cpu(inputs, table, kinds, out, checked)


def combine_reference(
    inputs: Sequence[torch.Tensor],
    coefs: np.ndarray,
    dtypes: Sequence[torch.dtype],
    *,
    out: Sequence[torch.Tensor] | None = None,
    checked: int = 0,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The specification, in plain torch: differentiable, and on any device."""
    wide = accumulation_dtype(dtypes)
    terms = [x.to(wide) for x in inputs]
    scalar = coefs.ndim == 2
    matrix = in_accumulation_dtype(coefs, dtypes)
    rows = torch.from_numpy(matrix)
    # Python floats carry scalars to any device without a copy; fp32 values survive the trip exactly.
    weights = rows.tolist() if scalar else rows.to(inputs[0].device)
    sums = []
    for row, used in zip(weights, used_inputs(matrix), strict=True):
        products = [weight * term for weight, term, use in zip(row, terms, used, strict=True) if use]
        sums.append(reduce(torch.add, products) if products else torch.zeros_like(terms[0]))
    results = tuple(total.to(dtype) for total, dtype in zip(sums, dtypes, strict=True))
    bad = torch.zeros((), dtype=torch.bool, device=inputs[0].device)
    for term in terms[:checked]:
        bad = bad | ~torch.isfinite(term).all()
    if out is not None:  # last, as an output may be an input
        for target, result in zip(out, results, strict=True):
            target.copy_(result)
        results = tuple(out)
    return results, bad


def used_inputs(coefs: np.ndarray) -> np.ndarray:
    """(R, K) bool: which inputs enter which sum."""
    return np.asarray((coefs != 0).reshape(*coefs.shape[:2], -1).any(axis=2))


def cpu_refuses(tensors: Sequence[torch.Tensor], coefs: np.ndarray) -> str | None:
    """Why the CPU kernel cannot serve these tensors, or None if it can."""
    first = tensors[0]
    if transformed():
        return "torch.compile and torch.func transforms need torch operations"
    if coefs.ndim > 2:
        return "coefficients vary over the elements"
    for x in tensors:
        if not plain(x):
            return f"{type(x).__name__} on {x.device} is not a plain CPU tensor"
        if x.requires_grad and torch.is_grad_enabled():
            return "gradients are recorded"
        if x.stride() != first.stride() or not dense(x):
            return "the tensors are not laid out densely and alike"
    return _processor_refuses()


@cache
def _processor_refuses() -> str | None:
    from .native import features  # loads the compiler, so only when a CPU tensor asks

    if platform.machine() in ("aarch64", "arm64") or "+f16c" in features():
        return None
    return f"compiled code for {platform.machine()} without F16C would lack instructions that convert fp16"


def _overlap(inputs: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> str | None:
    """An output may be an input, but not a shifted view of one: blocks would read what others have written."""
    for i, o in enumerate(out):
        begin, end = o.data_ptr(), o.data_ptr() + o.numel() * o.element_size()
        for j, x in enumerate((*inputs, *out[:i])):
            start, stop = x.data_ptr(), x.data_ptr() + x.numel() * x.element_size()
            same = j < len(inputs) and start == begin and x.dtype == o.dtype
            if start < end and begin < stop and not same:
                return "an output overlaps another tensor"
    return None


def plain(x: torch.Tensor) -> bool:
    """Whether the tensor is what lies at its address: on the CPU, no subclass, no pending negation."""
    return (
        type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.device.type == "cpu"
        and x.layout is torch.strided
        and not x.is_neg()
    )


def transformed() -> bool:
    """Whether torch.compile, a torch.func transform or forward-mode AD is active: tensors are then more than
    their data, and nothing but torch operations may touch them."""
    return (
        torch.compiler.is_compiling()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


def vmapped() -> bool:
    """Whether torch.func.vmap is active: then no value of a tensor can be looked at."""
    functorch = torch._C._functorch
    return any(level.key() == functorch.TransformType.Vmap for level in functorch.get_interpreter_stack() or ())


def dense(x: torch.Tensor) -> bool:
    """Whether the elements fill one block of memory, in whatever order (contiguous, channels-last, ...)."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _combine_cpu(
    inputs: Sequence[torch.Tensor],
    coefs: np.ndarray,
    dtypes: Sequence[torch.dtype],
    out: Sequence[torch.Tensor] | None,
    checked: int,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    from .combine_cpu import kernel, signature  # loads the compiler

    results = tuple(out) if out is not None else tuple(torch.empty_like(inputs[0], dtype=d) for d in dtypes)
    tensors = (*inputs, *results)
    matrix = in_accumulation_dtype(coefs, dtypes)
    function = kernel(signature([x.dtype for x in inputs], dtypes, matrix, checked))
    frame = array("q", [x.data_ptr() for x in tensors])
    row = array("q", [matrix.ctypes.data, *range(len(tensors))])
    size = sum(x.element_size() for x in tensors)
    bad = launch(function, frame.buffer_info()[0], row.buffer_info()[0], inputs[0].numel(), size)
    return results, torch.tensor(bool(bad))


def _check(
    inputs: Sequence[torch.Tensor],
    coefs: np.ndarray,
    dtypes: Sequence[torch.dtype] | None,
    out: Sequence[torch.Tensor] | None,
) -> tuple[torch.dtype, ...]:
    """The dtypes of the outputs; ValueError for what does not fit."""
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise ValueError(f"combine takes 1 to {MAX_INPUTS} inputs, not {len(inputs)}")
    if coefs.ndim < 2 or coefs.shape[1] != len(inputs) or not 1 <= coefs.shape[0] <= MAX_OUTPUTS:
        raise ValueError(f"coefs must have shape (R, {len(inputs)}) with R from 1 to {MAX_OUTPUTS}, not {coefs.shape}")
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
