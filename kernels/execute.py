"""What `combine` does after its checks: the reference, which is the specification, or the backend that serves."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch

from .backends import choose
from .normals import Noise, normals
from .sums import weighted_sum
from .table import ONE, Table, table
from .tensors import accumulation_dtype, cpu_refuses, elements, overlap, triton_refuses


def execute(
    inputs: Sequence[torch.Tensor],
    coefs: Table,
    dtypes: Sequence[torch.dtype],
    out: Sequence[torch.Tensor] | None,
    checked: int,
    noise: Noise | None,
    backend: str | None,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """`combine` after its checks: on the backend that serves these tensors."""
    tensors, contiguous = [*inputs, *(out or ())], noise is not None or coefs.by_element
    refusals = {
        "cpu": lambda: cpu_refuses(tensors, contiguous=contiguous) or overlap(inputs, out or ()),
        "triton": lambda: triton_refuses(tensors, contiguous=contiguous) or overlap(inputs, out or ()),
    }
    chosen = choose(backend, inputs[0].device, refusals)
    if chosen == "torch":
        return combine_reference(inputs, coefs, dtypes, out=out, checked=checked, noise=noise)
    results = tuple(out) if out is not None else tuple(torch.empty_like(inputs[0], dtype=d) for d in dtypes)
    return results, _launcher(chosen)(inputs, coefs, results, checked, noise)


@cache
def _launcher(backend: str) -> Callable[..., torch.Tensor]:
    if backend == "cpu":
        from .combine_cpu import launch_combine  # loads the compiler
    else:
        from .combine_triton import launch_combine  # loads Triton
    return launch_combine


def combine_reference(
    inputs: Sequence[torch.Tensor],
    coefs: Table | np.ndarray,
    dtypes: Sequence[torch.dtype],
    *,
    out: Sequence[torch.Tensor] | None = None,
    checked: int = 0,
    noise: Noise | None = None,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The specification, in plain torch: differentiable, and on any device."""
    prepared, wide, device = table(coefs), accumulation_dtype(dtypes), inputs[0].device
    terms = [x.to(wide) for x in inputs]
    columns = list(terms)
    if noise is not None:
        columns += [standard_normals(noise, k, inputs[0]).to(wide) for k in range(len(noise.columns))]
    # Python floats carry scalars to any device without a copy; fp32 values survive the trip exactly.
    event = inputs[0].shape[1:]
    weights = (
        prepared.on(device, wide, event).reshape(*prepared.shape[:2], *event)
        if prepared.by_element
        else prepared.rounded(wide, event).tolist()
    )
    rows = zip(weights, prepared.used(wide), strict=True)
    sums = [weighted_sum(row, columns, used) for row, used in rows]
    results = tuple(total.to(dtype) for total, dtype in zip(sums, dtypes, strict=True))
    bad = torch.zeros((), dtype=torch.bool, device=device)
    for term in terms[:checked]:
        bad = bad | ~torch.isfinite(term).all()
    return copied(results, out), bad


def standard_normals(noise: Noise, column: int, like: torch.Tensor) -> torch.Tensor:
    """One column of noise as a tensor of ``like``'s shape, fp32, by the backend that serves it: torch takes 200 times
    as long as compiled code."""
    z = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    chosen = choose(None, z.device, {"cpu": lambda: cpu_refuses([z]), "triton": lambda: triton_refuses([z])})
    if chosen != "torch":
        one = Noise(noise.seeds, noise.samples, noise.columns[column : column + 1])
        _launcher(chosen)([], ONE, [z], 0, one)
        return z
    interval, stream = noise.columns[column]
    values = normals(noise.seeds, noise.samples, interval, elements(like), stream=stream, device=like.device)
    return values.reshape(like.shape)


def copied(results: Sequence[torch.Tensor], out: Sequence[torch.Tensor] | None) -> tuple[torch.Tensor, ...]:
    """The results, in ``out`` if there is one: written last, as an output may be an input."""
    if out is None:
        return tuple(results)
    for target, result in zip(out, results, strict=True):
        target.copy_(result)
    return tuple(out)
