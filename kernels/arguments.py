"""What `combine` asks of its tensors."""

from collections.abc import Sequence

import torch

from .tensors import STATE_DTYPES

MAX_INPUTS = 12
MAX_OUTPUTS = 3


def check_tensors(
    inputs: Sequence[torch.Tensor],
    rows: int,
    dtypes: Sequence[torch.dtype] | None,
    out: Sequence[torch.Tensor] | None,
) -> tuple[torch.dtype, ...]:
    """The dtypes of ``rows`` outputs; TypeError or ValueError, by name, for what does not fit."""
    tensors = (*inputs, *(out or ()))
    for j, x in enumerate(tensors):
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{_name(j, inputs)} must be a tensor, not {type(x).__name__}")
    if not 1 <= len(inputs) <= MAX_INPUTS:
        raise ValueError(f"inputs must be 1 to {MAX_INPUTS} tensors, not {len(inputs)}")
    if out is not None and dtypes is not None:
        raise ValueError("give out or dtypes, not both: out has its own dtypes")
    kinds = [o.dtype for o in out] if out is not None else dtypes or [inputs[0].dtype] * rows
    if len(kinds) != rows:
        raise ValueError(f"coefs has {rows} rows, but {len(kinds)} outputs are given")
    shape, device = inputs[0].shape, inputs[0].device
    for j, x in enumerate(tensors):
        if x.shape != shape or x.device != device:
            raise ValueError(
                f"{_name(j, inputs)} must have the shape and device of inputs[0], {tuple(shape)} on {device}, "
                f"not {tuple(x.shape)} on {x.device}"
            )
        if x.dtype not in STATE_DTYPES:
            raise ValueError(f"{_name(j, inputs)} must be fp64, fp32, fp16 or bf16, not {x.dtype}")
    for dtype in kinds:
        if dtype not in STATE_DTYPES:
            raise ValueError(f"dtypes must be fp64, fp32, fp16 or bf16, not {dtype}")
    return tuple(kinds)


def check_event(given: Sequence[int], event: Sequence[int]) -> None:
    """Raise ValueError where coefficients by element, of the shape ``given``, do not go with samples of ``event``."""
    if len(given) > len(event) or any(e not in (1, n) for e, n in zip(given[::-1], event[::-1], strict=False)):
        raise ValueError(f"per-element coefs of shape {(*given,)} do not broadcast against {tuple(event)}")


def _name(j: int, inputs: Sequence[torch.Tensor]) -> str:
    return f"inputs[{j}]" if j < len(inputs) else f"out[{j - len(inputs)}]"


def copied(results: Sequence[torch.Tensor], out: Sequence[torch.Tensor] | None) -> tuple[torch.Tensor, ...]:
    """The results, in ``out`` if there is one: written last, as an output may be an input."""
    if out is None:
        return tuple(results)
    for target, result in zip(out, results, strict=True):
        target.copy_(result)
    return tuple(out)
