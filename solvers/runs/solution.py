"""What a run returns, and the last look at it."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...kernels import combine, transformed
from ...kernels.table import ONE
from ..denoisers.complex_states import from_parts
from ..finite import NonFiniteError, all_finite, broken_samples, named
from ..parallel.common import Certificate
from ..programs.program import Program
from ..programs.provenance import warn_of_wide


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """What `solve` returns.

    x: the end state, shape and dtype of the start. nfe: model evaluations per sample, counted. rounds: how
    many sequential batched model calls they took. times: float64, the grid (or the accepted steps' span);
    read-only; (steps + 1, B) where every sample has its own start, and there is then no ``program``.
    trajectory: (steps + 1, B, ...), the state at every time, if it was asked for. program: the table, if any.
    stopped: whether a callback has ended the run, by `logsnr.StopSampling`: x is then the state at the last of
    ``times``, the end of ``trajectory``. Parallel and adaptive runs are shown when they are done: they cost the whole.
    certificate: of a parallel run, how far it is from the sequential one; nfe is then of the sample that took most.
    failed: the samples that stopped being finite, of a run with ``on_nan="keep"``.
    accepted, rejected, nfe_per_sample: of an adaptive run, int64 (B,) on the CPU: how many steps of each sample were,
    and its evaluations; nfe is then of the sample that took most. grids: the times between each sample's steps, from
    the first to the last: a grid for fixed steps.
    """

    x: torch.Tensor
    nfe: int
    rounds: int
    times: np.ndarray
    trajectory: torch.Tensor | None = None
    program: Program | None = None
    certificate: Certificate | None = None
    failed: tuple[int, ...] = ()
    accepted: torch.Tensor | None = None
    rejected: torch.Tensor | None = None
    nfe_per_sample: torch.Tensor | None = None
    grids: tuple[np.ndarray, ...] = ()
    stopped: bool = False

    def __repr__(self) -> str:
        """One line, without numbers of tensors."""
        by = f" by {self.program.name}" if self.program else ""
        failed = f", {len(self.failed)} samples failed" if self.failed else ""
        kind = str(self.x.dtype).removeprefix("torch.")
        return f"<Solution{by}: x {kind} {tuple(self.x.shape)}, {self.nfe} evaluations, {self.rounds} rounds{failed}>"


def finished(found: Solution, x: torch.Tensor, keep: bool, parts: bool = False) -> Solution:
    """``found`` in the dtype of the start ``x``, after a last look: NonFiniteError, or a warning with ``keep``. parts:
    its states are those of complex ones.

    Nobody can look under transforms and while a CUDA graph is captured.
    """
    if parts:
        whole, states = finished(found, x, keep), found.trajectory
        return replace(whole, x=from_parts(whole.x), trajectory=None if states is None else from_parts(states))
    end = found.x if found.x.dtype is x.dtype else _cast(found.x, x.dtype)
    blind = transformed() or (end.is_cuda and torch.cuda.is_current_stream_capturing()) or end.is_meta
    if blind or all_finite(end):
        if not blind and found.program and found.program.provenance:
            warn_of_wide(found.program, end)
        return found if end is found.x else replace(found, x=end)
    failed = broken_samples(end)
    if keep:
        warnings.warn(f"the result is not finite{named(failed, len(x), hint=False)}", stacklevel=3)
        return replace(found, x=end, failed=failed)
    if start := broken_samples(x):
        raise ValueError(f"x holds infinities or NaNs{named(start, len(x))}")
    if not broken_samples(found.x):
        largest = float(found.x.detach().abs().max())
        raise NonFiniteError(
            f"the result reaches {largest:.3g}, more than {x.dtype} holds{named(failed, len(x))}; give x in float32"
        )
    raise _overflow(found, failed, len(x))


def _overflow(found: Solution, failed: tuple[int, ...], batch: int) -> NonFiniteError:
    """Of a state that stops being finite though the model's answers are finite, after the last call that looks at it.
    Not all do, as that costs, so it is known where that began if there is a trajectory."""
    calls = found.program.calls if found.program else ()
    if found.trajectory is not None and calls:
        for n, call in enumerate(calls):
            known = call.node is not None and call.node < len(found.trajectory)
            if known and (broken := broken_samples(found.trajectory[call.node])):
                return NonFiniteError.at(n, len(calls), call.t, broken, batch, state=True)
    count, t = len(calls) or found.nfe, float(np.ravel(found.times[-1])[0])
    end = NonFiniteError.at(count - 1, count, t, failed, batch, state=True)
    where = "; trajectory=True says where that began" if calls else ""
    return NonFiniteError(f"{end}{where}", count - 1, t, failed)


def _cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x`` rounded, without torch's threads where there is compiled code: a forked child would wait for them."""
    if x.requires_grad or transformed():
        return x.to(dtype)
    return combine([x], ONE, dtypes=[dtype])[0][0]
