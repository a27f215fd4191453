"""`dynamic_threshold`: clip every sample at a quantile of its absolute values; and the quantile, without sorting.

The functions named ``reference`` are the specification. Compiled backends find order statistics by their bits:
of floating numbers that are not negative, the greater has the greater bits, read as an integer. A histogram of the
leading bits says in which bin the wanted rank lies, one of the next bits within that bin where in it, until all
bits are known: exact, in one pass over memory for every 11 bits (8 on a GPU), whatever the values are.
"""

from math import floor

import torch

from .backends import Backend, choose
from .tensors import STATE_DTYPES, accumulation_dtype, cpu_refuses, elements, overlap, scattered, triton_refuses

FEW = 256  # elements of a sample that the CPU sorts: histograms of 2048 bins would take longer
SOON = {"cpu": 1 << 12, "triton": 1 << 22}  # elements in all that are sorted before the passes have begun


def dynamic_threshold(
    x: torch.Tensor,
    *,
    quantile: float | None = 0.995,
    limit: float = 1.0,
    out: torch.Tensor | None = None,
    backend: Backend | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip every sample to [-s, s] and scale it to [-limit, limit], where s is the ``quantile`` of its absolute
    values, as `quantile_abs` defines it, but at least ``limit``: dynamic thresholding (Saharia et al. 2022,
    Photorealistic text-to-image diffusion models, sec. 2.3).

    x:        (B, ...), of fp64, fp32, fp16 or bf16: predicted data, whose values belong into [-limit, limit].
    quantile: from 0 to 1; None for s = limit, static thresholding.
    limit:    positive and finite.
    out:      a tensor to write to, in place of a new one, like x; it may be x.
    backend:  "torch", "cpu" (compiled) or "triton"; by default LOGSNR_BACKEND, or the fastest that serves these.

    Returns the clipped samples, ``clip(x, -s, s) / (s / limit)`` rounded once to the dtype of x, and s: (B,), fp64
    if x is and else fp32, in which the division is done. A sample that holds a NaN becomes NaN, and s with it; with
    ``quantile=None`` other elements are kept. Where s is infinite, finite elements become 0 and infinite ones NaN.
    Samples are independent of each other, and all backends return the same bits.
    Raises ValueError for what does not fit, and RuntimeError if the backend asked for cannot serve these tensors,
    with the reason.
    """
    _check(x, quantile)
    if not 0 < limit < float("inf"):
        raise ValueError(f"limit must be positive and finite, not {limit}")
    if out is not None and (out.shape, out.dtype, out.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            f"out must be like x, {tuple(x.shape)} of {x.dtype} on {x.device}, "
            f"not {tuple(out.shape)} of {out.dtype} on {out.device}"
        )
    asked = _choose(backend, x, out)
    s = x.new_full((len(x),), limit, dtype=accumulation_dtype([x.dtype]))
    if quantile is not None and x.numel():
        s = torch.maximum(_quantile(x, quantile, asked), s)
    factor = s / torch.full_like(s, limit)  # by a tensor: torch may turn a division by a number into a product
    if asked == "torch":
        y = clip_reference(x, s, factor)
        return y if out is None else out.copy_(y), s
    if asked == "cpu":
        from .threshold_cpu import clip  # loads the compiler
    else:
        from .threshold_triton import clip  # loads Triton
    return clip(x, s, factor, torch.empty_like(x) if out is None else out), s


def quantile_abs(x: torch.Tensor, q: float, *, backend: Backend | None = None) -> torch.Tensor:
    """The q-quantile of every sample's absolute values, exactly, by the definition of `torch.quantile` and
    `numpy.quantile` ("linear"): with a_0 <= a_1 <= ... the n sorted values, ``a_k + w (a_{k+1} - a_k)``, where k and
    w are the whole and the fractional part of q (n - 1), in fp64.

    x:       (B, ...), of fp64, fp32, fp16 or bf16, with 1 to 2^33 elements in a sample.
    q:       from 0 to 1.
    backend: "torch" (sorts), "cpu" (compiled) or "triton"; by default LOGSNR_BACKEND, or the fastest that serves x.

    Returns (B,), fp64 if x is and else fp32; interpolated in fp64 and rounded once, between a_k and a_{k+1}
    inclusive. NaN for a sample that holds one. Infinities are ordered above all numbers, and the result is infinite
    where a_k is, or where a_{k+1} is and w > 0. Samples are independent of each other, and all backends return the
    same bits.
    Raises ValueError for what does not fit, and RuntimeError if the backend asked for cannot serve x, with the
    reason.
    """
    _check(x, q)
    if len(x) and not x.numel():
        raise ValueError(f"x must have elements in every sample, but it has shape {tuple(x.shape)}")
    return _quantile(x, q, _choose(backend, x, None))


def order_statistics_reference(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k-th and the (k+1)-th smallest absolute value of every sample, from 0; the largest if there is none; NaN
    if the sample holds one. By sorting: differentiable, and on any device."""
    values = x.reshape(len(x), elements(x)).abs().sort(dim=1).values  # NaNs come last
    nan = values[:, -1].isnan()
    low, high = (values[:, min(i, elements(x) - 1)] for i in (k, k + 1))
    return torch.where(nan, values[:, -1], low), torch.where(nan, values[:, -1], high)


def clip_reference(x: torch.Tensor, s: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    bound, divisor = (v.reshape(-1, *(1,) * (x.ndim - 1)) for v in (s, factor))
    return (torch.minimum(torch.maximum(x.to(s.dtype), -bound), bound) / divisor).to(x.dtype)


def _quantile(x: torch.Tensor, q: float, backend: str) -> torch.Tensor:
    wide = accumulation_dtype([x.dtype])
    if not x.numel():
        return x.new_empty(len(x), dtype=wide)
    position = q * (elements(x) - 1)
    k = floor(position)
    if backend == "torch" or x.numel() < SOON[backend] or (backend == "cpu" and elements(x) < FEW):
        low, high = order_statistics_reference(x, k)
    else:
        if backend == "cpu":
            from .threshold_cpu import order_statistics  # loads the compiler
        else:
            from .threshold_triton import order_statistics  # loads Triton
        low, high = order_statistics(x, k)
    low, high, weight = low.double(), high.double(), position - k
    if weight == 0:  # 0 times an infinite difference would be NaN
        return low.to(wide)
    between = torch.minimum(low + weight * (high - low), high)
    return torch.where(low == high, low, between).to(wide)


def _choose(backend: str | None, x: torch.Tensor, out: torch.Tensor | None) -> str:
    outs = [] if out is None else [out]

    def unfit() -> str | None:
        return scattered(x) or overlap([x], outs)

    return choose(
        backend,
        x.device,
        {"cpu": lambda: cpu_refuses([x, *outs]) or unfit(), "triton": lambda: triton_refuses([x, *outs]) or unfit()},
    )


def _check(x: torch.Tensor, q: float | None) -> None:
    if x.dtype not in STATE_DTYPES:
        raise ValueError(f"x must be fp64, fp32, fp16 or bf16, not {x.dtype}")
    if x.ndim == 0:
        raise ValueError("x must have a batch dimension, but it has no dimension")
    if q is not None and not 0 <= q <= 1:
        raise ValueError(f"the quantile must be from 0 to 1, not {q}")
