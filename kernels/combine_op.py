"""`combine` as an operator of torch: torch.compile sees one node, autograd one linear map."""

from collections.abc import Sequence
from typing import Any

import torch

from .execute import execute
from .normals import Noise
from .table import table
from .tensors import STATE_DTYPES

# A dtype is passed as its place in STATE_DTYPES: schemas know no lists of dtypes.
_LIBRARY = torch.library.Library("logsnr", "DEF")  # the registrations live as long as this object
_LIBRARY.define(
    "combine(Tensor[] inputs, Tensor coefs, int[] dtypes, int checked, Tensor? seeds, Tensor? samples, "
    "int[] columns, str? backend) -> Tensor[]"
)


def traced(
    inputs: Sequence[torch.Tensor],
    coefs: torch.Tensor,
    dtypes: Sequence[torch.dtype],
    checked: int,
    noise: Noise | None,
    backend: str | None,
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """`execute` through the operator; ``coefs`` float64."""
    seeds, samples = (noise.seeds, noise.samples) if noise else (None, None)
    words = [word for column in noise.columns for word in column] if noise else []
    *results, bad = torch.ops.logsnr.combine(
        list(inputs),
        coefs,
        [STATE_DTYPES.index(d) for d in dtypes],
        checked,
        seeds,
        samples,
        words,
        backend,
    )
    return tuple(results), bad


def _run(
    inputs: list[torch.Tensor],
    coefs: torch.Tensor,
    dtypes: list[int],
    checked: int,
    seeds: torch.Tensor | None,
    samples: torch.Tensor | None,
    columns: list[int],
    backend: str | None,
) -> list[torch.Tensor]:
    noise = None
    if seeds is not None and samples is not None:
        noise = Noise(seeds, samples, tuple(zip(columns[::2], columns[1::2], strict=True)))
    kinds = [STATE_DTYPES[k] for k in dtypes]
    results, bad = execute(inputs, table(coefs), kinds, None, checked, noise, backend)
    return [*results, bad]


def _fake(inputs: list[torch.Tensor], coefs: torch.Tensor, dtypes: list[int], *_: Any) -> list[torch.Tensor]:
    return [
        *(torch.empty_like(inputs[0], dtype=STATE_DTYPES[k]) for k in dtypes),
        inputs[0].new_empty((), dtype=torch.bool),
    ]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    xs, coefs, _, _, _, _, columns, backend = inputs
    ctx.dtypes, ctx.columns, ctx.backend = [x.dtype for x in xs], columns, backend
    ctx.save_for_backward(coefs)


def _backward(ctx: Any, grads: list[torch.Tensor]) -> tuple[Any, ...]:
    """The transposed map, three inputs at a time."""
    (coefs,) = ctx.saved_tensors
    grads = grads[:-1]  # the flag has none
    found: list[torch.Tensor] = []
    for j in range(0, len(ctx.dtypes), 3):
        kinds = ctx.dtypes[j : j + 3]
        rows = coefs[:, j : j + len(kinds)].transpose(0, 1)
        found += traced(grads, rows, kinds, 0, None, ctx.backend)[0]
    # The structure of the inputs, of which an empty list counts as one of tensors.
    return found, None, None, None, None, None, None if ctx.columns else [], None


def _vmap(info: Any, in_dims: Any, inputs: list[torch.Tensor], coefs: torch.Tensor, *rest: Any) -> tuple[Any, Any]:
    """The mapped dimension becomes part of the batch."""
    dtypes, checked, seeds, samples, columns, backend = rest
    if seeds is not None:
        raise ValueError("combine adds no noise under vmap: give it as a tensor")
    batched = [
        x.expand(info.batch_size, *x.shape) if d is None else x.movedim(d, 0)
        for x, d in zip(inputs, in_dims[0], strict=True)
    ]
    inner = batched[0].shape[1:]
    flat = [x.flatten(0, 1) if inner else x for x in batched]
    *results, bad = torch.ops.logsnr.combine(flat, coefs, dtypes, checked, seeds, samples, columns, backend)
    unflat = [y.unflatten(0, (info.batch_size, inner[0])) if inner else y for y in results]
    return [*unflat, bad], [*(0 for _ in unflat), None]


_LIBRARY.impl("combine", _run, "CompositeExplicitAutograd")
torch.library.register_fake("logsnr::combine", _fake, lib=_LIBRARY)
torch.library.register_autograd("logsnr::combine", _backward, setup_context=_remember, lib=_LIBRARY)
torch.library.register_vmap("logsnr::combine", _vmap, lib=_LIBRARY)
