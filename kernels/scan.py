"""`scan`: all calls of a window of a program at once, with the outputs of the model given.

`scan_reference` is the specification.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from .backends import Backend, choose
from .devices import float64_device, in_float64
from .recurrence import Recurrence
from .sums import numbers, sum_squares, weighted_sum
from .table import check_event, used_columns
from .tensors import STATE_DTYPES, cpu_refuses, overlap, triton_refuses

Tensors = Sequence[torch.Tensor]


def scan(
    start: torch.Tensor,
    outputs: Tensors,
    nodes: torch.Tensor,
    recurrence: Recurrence,
    *,
    first: int = 0,
    noises: Tensors = (),
    slopes: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    backend: Backend | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One Picard update of a window of W calls, ``first`` to ``first + W - 1`` (Shih et al. 2023, ParaDiGMS,
    Algorithm 1, for any linear method): the calls are carried out one after the other in registers, so that
    every output is read once and every node written once.

    start:      (S, B, ...), fp64 or fp32: the slots before call ``first``. The sums are taken in its dtype.
    outputs:    one (W, B, ...) for every model output of a call; row k is what call ``first + k`` gets.
    nodes:      (W, B, ...), of no wider dtype than start: row k is what call ``first + k + 1`` is thought to see
                (for the last call of all: the result). The first call of the window sees a slot of ``start``.
    recurrence: the calls of the program.
    noises:     one (W, B, ...) for every noise column.
    slopes:     (W, B), finite, of the dtype of start: how the model's outputs follow what a call sees. The outputs
                of call k are then taken as ``outputs + slopes[k] * (new - old)`` of the node that it sees: a step of
                Newton's method for all calls of the window, with multiples of the identity as Jacobians. What the
                first call sees does not change.
    out:        where the new nodes go, of the dtype of nodes; may be ``nodes`` itself.
    backend:    "torch", "cpu" (compiled) or "triton"; by default LOGSNR_BACKEND, or the fastest that serves these. The
                compiled ones need contiguous tensors, as leading slices of contiguous ones are.

    Outputs, nodes and noises may be fp64, fp32, fp16 and bf16 and are converted in registers. The slots stay in
    the dtype of start from call to call; sums run over the columns (outputs, slots, noises) from left to right,
    products and sums rounded separately, columns with coefficient 0 left out; a new node is a slot rounded once
    to the dtype of nodes. All backends return the same nodes, bit for bit but for the sign of zeros and of NaN,
    and they are what the calls give one by one.

    Returns the new nodes and their squared change, (W, B), fp64: the sum over a sample's elements of the square
    of (new - old) as they are stored. The difference is rounded to the dtype of start, the rest is fp64 in a fixed
    order: it is right to 3 units of roundoff of fp32 (where start is fp64, to 1e-12) and the same, to the last
    bit, in any batch and with any number of threads. It is 0 if and only if no element has changed (differences
    of fp64 nodes below 1e-162 count as 0), and not finite where an element is not. If it is 0 for the first j
    nodes and the outputs are those of the old nodes, then the first j + 1 new nodes are those of the sequential
    program.
    Raises ValueError for shapes, counts, devices and dtypes that do not fit, and RuntimeError if the backend
    asked for cannot serve these tensors, with the reason.
    """
    _check(start, outputs, recurrence, first, noises)
    if nodes.shape != outputs[0].shape or nodes.device != start.device:
        raise ValueError(_unlike("nodes", nodes, outputs[0].shape, start.device))
    if nodes.dtype not in STATE_DTYPES or nodes.dtype.itemsize > start.dtype.itemsize:
        raise ValueError(f"nodes must be floating and no wider than start, {start.dtype}, not {nodes.dtype}")
    if out is not None and (out.shape, out.dtype, out.device) != (nodes.shape, nodes.dtype, nodes.device):
        raise ValueError(f"{_unlike('out', out, nodes.shape, nodes.device)}, and its dtype {nodes.dtype}")
    if slopes is not None:
        shape = (len(nodes), start.shape[1])
        if slopes.shape != shape or slopes.device != start.device or slopes.dtype != start.dtype:
            raise ValueError(f"{_unlike('slopes', slopes, shape, start.device)}, and the dtype {start.dtype}")
        slopes = slopes.contiguous()
    compiled = _compiled(backend, recurrence, [nodes, start, *outputs, *noises], [] if out is None else [out])
    if compiled is None:
        return scan_reference(start, outputs, nodes, recurrence, first=first, noises=noises, slopes=slopes, out=out)
    out = torch.empty_like(nodes) if out is None else out
    return out, compiled(start, outputs, noises, recurrence, first, nodes, out, slopes)


def advance(
    start: torch.Tensor,
    outputs: Tensors,
    recurrence: Recurrence,
    *,
    first: int = 0,
    noises: Tensors = (),
    out: torch.Tensor | None = None,
    backend: Backend | None = None,
) -> torch.Tensor:
    """The slots (S, B, ...) after the calls ``first`` to ``first + W - 1``: where a window that has moved on by W
    calls starts. Arguments, arithmetic and errors are those of `scan`; ``out`` may be ``start`` itself.
    """
    _check(start, outputs, recurrence, first, noises)
    if out is not None and (out.shape, out.dtype, out.device) != (start.shape, start.dtype, start.device):
        raise ValueError(f"{_unlike('out', out, start.shape, start.device)}, and its dtype {start.dtype}")
    compiled = _compiled(backend, recurrence, [start, *outputs, *noises], [] if out is None else [out])
    if compiled is None:
        slots = start.unbind(0)
        for k in range(len(outputs[0])):
            slots = _call(slots, outputs, noises, recurrence, first, k)
        return torch.stack(slots) if out is None else out.copy_(torch.stack(slots))
    out = torch.empty_like(start) if out is None else out
    compiled(start, outputs, noises, recurrence, first, None, out, None)
    return out


def scan_reference(
    start: torch.Tensor,
    outputs: Tensors,
    nodes: torch.Tensor,
    recurrence: Recurrence,
    *,
    first: int = 0,
    noises: Tensors = (),
    slopes: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The specification, in plain torch: differentiable, and on any device that has fp64."""
    slots, news = start.unbind(0), []
    changes = [torch.zeros((0, start.shape[1]), dtype=torch.float64, device=float64_device(start.device))]
    change = torch.zeros_like(start[0])
    for k, old in enumerate(nodes):
        follow = None if slopes is None else slopes[k].reshape(-1, *[1] * (start.ndim - 2)) * change
        slots = _call(slots, outputs, noises, recurrence, first, k, follow)
        new = slots[recurrence.at[first + k + 1]].to(nodes.dtype)
        change = new.to(start.dtype) - old.to(start.dtype)
        changes.append(sum_squares(in_float64(change).reshape(len(old), prod(old.shape[1:])))[None])
        news.append(new)
    result = torch.stack(news) if news else nodes.clone()
    return result if out is None else out.copy_(result), torch.cat(changes)


def _call(
    slots: Tensors,
    outputs: Tensors,
    noises: Tensors,
    recurrence: Recurrence,
    first: int,
    k: int,
    follow: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """The slots after call ``first + k``, whose outputs change by ``follow``."""
    wide = slots[0].dtype
    answers = [x[k].to(wide) if follow is None else x[k].to(wide) + follow for x in outputs]
    terms = [*answers, *slots, *(x[k].to(wide) for x in noises)]
    matrix = recurrence.matrices[first + k]
    table = recurrence.table(wide, slots[0].device)[first + k] if recurrence.by_element else numbers(matrix, wide)
    rows = zip(table, used_columns(matrix, wide), strict=True)
    return tuple(weighted_sum(row, terms, used) for row, used in rows)


def _compiled(
    backend: Backend | None, recurrence: Recurrence, tensors: Tensors, out: Tensors
) -> Callable[..., Any] | None:
    """The compiled code that serves a call; None for torch."""

    def unfit() -> str | None:
        if recurrence.by_element:
            return "the coefficients vary over the elements"
        if not all(x.is_contiguous() for x in (*tensors, *out)):
            return "the tensors are not contiguous"
        return overlap(tensors, out)

    def each(refuse: Callable[[Tensors], str | None]) -> str | None:
        return next((reason for x in (*tensors, *out) if (reason := refuse([x])) is not None), None)

    def large() -> str | None:
        return "a sample has 2^31 elements or more" if prod(tensors[0].shape[2:]) >= 1 << 31 else None

    asked = choose(
        backend,
        tensors[0].device,
        {"cpu": lambda: each(cpu_refuses) or unfit(), "triton": lambda: each(triton_refuses) or unfit() or large()},
    )
    if asked == "cpu":
        from .scan_cpu import scan_cpu  # loads the compiler

        return scan_cpu
    if asked == "triton":
        from .scan_triton import scan_triton  # loads Triton

        return scan_triton
    return None


def _check(start: torch.Tensor, outputs: Tensors, recurrence: Recurrence, first: int, noises: Tensors) -> None:
    if start.ndim < 2 or len(start) != recurrence.slots:
        raise ValueError(f"start must have shape ({recurrence.slots}, B, ...), not {tuple(start.shape)}")
    check_event(recurrence.matrices.shape[3:], start.shape[2:])
    if start.dtype not in (torch.float64, torch.float32):
        raise ValueError(f"start must be fp64 or fp32, not {start.dtype}")
    for name, tensors, count in (("outputs", outputs, recurrence.models), ("noises", noises, recurrence.noises)):
        if len(tensors) != count:
            raise ValueError(f"{name} must be {count} tensor(s), one for every column, not {len(tensors)}")
    shape = (*outputs[0].shape[:1], *start.shape[1:])
    for name, tensors in (("outputs", outputs), ("noises", noises)):
        for j, x in enumerate(tensors):
            if x.shape != shape or x.device != start.device:
                raise ValueError(_unlike(f"{name}[{j}]", x, shape, start.device))
            if x.dtype not in STATE_DTYPES:
                raise ValueError(f"{name}[{j}] must be fp64, fp32, fp16 or bf16, not {x.dtype}")
    if not 0 <= first <= len(recurrence) - shape[0]:
        raise ValueError(
            f"first must leave room for {shape[0]} of {len(recurrence)} calls: from 0 to "
            f"{len(recurrence) - shape[0]}, not {first}"
        )


def _unlike(name: str, x: torch.Tensor, shape: Sequence[int], device: torch.device) -> str:
    return f"{name} must have shape {tuple(shape)} on {device}, not {tuple(x.shape)} on {x.device}"
